"""A tree of thoughts about a text, searched to a bounded depth: ``tree.yaml`` in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

import adjoin
from adjoin import functions as fn

#: A mark from 1 to 5, which the model writes under a grammar.
MARK = {"type": "integer", "enum": [1, 2, 3, 4, 5]}
SMALL = adjoin.ModelSpec("smollm2-135m", args={"max_model_len": 2048})


@adjoin.function
def branches(paths: list[str], thoughts: list[list[str]]) -> list[str]:
    """Each path with each of its next thoughts, once; a path that concluded stays as it is."""
    found: dict[str, None] = {}
    for path, following in zip(paths, thoughts, strict=True):
        if concluded(path):
            found[path] = None
            continue
        for thought in following:
            line = " ".join(thought.split())
            if line and line not in path:
                found[f"{path}\n{line}".strip()] = None
    return list(found) or paths


@adjoin.function
def finished(paths: list[str]) -> bool:
    """Whether the best path came to a conclusion."""
    return concluded(paths[0])


def concluded(path: str) -> bool:
    return "answer is" in path.rpartition("\n")[2].lower()


@adjoin.workflow(models={"small": SMALL})
def propose(passage: str, question: str, path: str) -> Any:
    prompt = fn.prompt(Path("propose.md"), passage=passage, question=question, path=path)
    return fn.generate.options(id="written")(
        prompt, model="small", n=3, temperature=0.7, seed=1, max_tokens=40, stop="\n"
    )


@adjoin.workflow(models={"small": SMALL})
def judge(passage: str, question: str, path: str) -> Any:
    prompt = fn.prompt(Path("judge.md"), passage=passage, question=question, path=path)
    return fn.generate.options(id="mark")(prompt, model="small", schema=MARK, max_tokens=4)


@adjoin.workflow
def grow(passage: str, question: str, paths: list[str]) -> dict[str, Any]:
    thoughts = propose(passage, question, adjoin.each(paths))
    grown = branches(paths, thoughts)
    marks = judge(passage, question, adjoin.each(grown))
    best = fn.select(grown, marks, k=2)
    done = finished(best)
    return {"paths": best, "done": done}


@adjoin.workflow(models={"small": SMALL})
def tree(
    passage: Annotated[str, Meta(min_length=1, max_length=4000)],
    question: Annotated[str, Meta(min_length=1, max_length=1000)],
) -> dict[str, Any]:
    until = adjoin.until(lambda result: result.done, max=3)
    grown = grow.options(repeat=until)(passage, question, [""])
    prompt = fn.prompt(Path("conclude.md"), passage=passage, question=question, paths=grown.paths)
    answer = fn.generate(prompt, model="small", max_tokens=32, stop="\n")
    return {"answer": answer, "thoughts": grown.paths[0]}
