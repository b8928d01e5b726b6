"""Questions answered from documents: the workflow of ``workflow.yaml``, in Python.

python examples/rag/app.py FOLDER "What is Dask?"
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

import adjoin
from adjoin import functions as fn

_WORD = re.compile(r"\w{4,}")


@adjoin.function
def cite(answer: str, passages: list[adjoin.Passage]) -> str:
    """The answer with the numbers of the passages that share most words with it."""
    words = set(_WORD.findall(answer.lower()))
    shared = [len(words & set(_WORD.findall(passage.text.lower()))) for passage in passages]
    enough = max(2, 0.6 * max(shared, default=0))
    numbers = [f"[{number}]" for number, count in enumerate(shared, start=1) if count >= enough]
    return " ".join([answer.strip(), "".join(numbers)]).strip()


@adjoin.workflow(models={"small": adjoin.ModelSpec("smollm2-135m", args={"max_model_len": 2048})})
def rag(
    question: Annotated[str, Meta(min_length=1, max_length=4000)],
    k: Annotated[int, Meta(ge=1, le=20)] = 3,
) -> dict[str, Any]:
    vector = fn.embed(question, model="minilm")
    passages = fn.retrieve(vector, collection="handbook", k=k)
    prompt = fn.prompt(Path("answer.md"), question=question, passages=passages)
    answer = fn.generate(prompt, model="small", max_tokens=64, frequency_penalty=0.3, stop="\n")
    cited = cite(answer, passages)
    return {"answer": cited, "sources": passages}


def main(folder: str, question: str) -> None:
    with adjoin.Runtime() as runtime:
        print(runtime.explain(rag))
        runtime.collection("handbook", embedding="minilm").add_files(folder)
        result = runtime.run(rag, question=question)
    print(result["answer"])
    for number, passage in enumerate(result["sources"], start=1):
        print(f"[{number}] {passage.source} ({passage.score:.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:3])
