"""A question split up, each part answered from documents: ``decompose.yaml`` in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

import adjoin
from adjoin import functions as fn

#: At most three: the fan-out is as wide as this list is long. The pattern keeps a small model from
#: writing anything but questions.
PARTS = {
    "type": "array",
    "items": {
        "type": "string",
        "pattern": r"^(What|Who|When|Where|Why|How) [A-Za-z0-9 ,'-]{4,60}\?$",
    },
    "minItems": 2,
    "maxItems": 3,
}


@adjoin.workflow(models={"small": adjoin.ModelSpec("smollm2-135m", args={"max_model_len": 2048})})
def solve(question: str, k: int = 3) -> dict[str, Any]:
    vector = fn.embed(question, model="minilm")
    passages = fn.retrieve(vector, collection="handbook", k=k)
    prompt = fn.prompt(Path("answer.md"), question=question, passages=passages)
    answer = fn.generate(prompt, model="small", max_tokens=48, frequency_penalty=0.3, stop="\n")
    return {"question": question, "answer": answer, "source": passages[0].source}


@adjoin.workflow(models={"small": adjoin.ModelSpec("smollm2-135m", args={"max_model_len": 2048})})
def decompose(
    question: Annotated[str, Meta(min_length=1, max_length=1000)],
    k: Annotated[int, Meta(ge=1, le=8)] = 3,
) -> dict[str, Any]:
    asked = fn.prompt(Path("split.md"), question=question)
    parts = fn.generate(asked, model="small", max_tokens=96, schema=PARTS)
    solved = solve(adjoin.each(parts), k=k)
    composed = fn.prompt(Path("compose.md"), question=question, solved=solved)
    answer = fn.generate(composed, model="small", max_tokens=80, frequency_penalty=0.3, stop="\n")
    return {"answer": answer, "parts": solved}
