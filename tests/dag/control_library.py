"""Functions, a workflow and helpers for the tests of constructs around stages."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from interpreter import run

import adjoin
from adjoin import dag
from adjoin.dag import Function
from adjoin.types import Passage


def search(q: str) -> list[Passage]:
    return [Passage(id="1", text=q, score=len(q) / 10)]


def web(q: str) -> list[Passage]:
    return [Passage(id="2", text=f"web {q}", score=1.0)]


def answer(part: str, passages: list[Passage], seed: int = 0) -> str:
    if part == "bad":
        raise ValueError("no answer")
    return f"{part}/{len(passages)}/{seed}"


def merge(found: list[Passage], more: list[Passage] | None = None) -> list[Passage]:
    return [*found, *(more or [])]


def words(text: str) -> list[str]:
    return text.split()


def texts(items: list[Any]) -> str:
    return "|".join(map(str, items))


def extend(thoughts: list[str], q: str) -> list[str]:
    return [*thoughts, q]


def double(n: int) -> int:
    return 2 * n


def flag(q: str) -> bool:
    return q == "yes"


def told(text: str, note: Any = None) -> str:
    return f"{text}:{note}"


REGISTRY: Mapping[str, Function] = {
    call.__name__: dag.builtin(call)
    for call in (search, web, answer, merge, words, texts, extend, double, flag, told)
}
SEARCH, WEB, ANSWER, MERGE, WORDS, TEXTS, EXTEND, DOUBLE, FLAG, TOLD = REGISTRY.values()


def load(stages: str, outputs: str, rest: str = "") -> dag.Graph:
    inputs = "{q: {type: string, default: q}, n: {type: integer, default: 3}}"
    lines = ["apiVersion: adjoin/v1", "kind: Workflow", "metadata: {name: w}", "spec:"]
    lines += [f"  inputs: {inputs}", "  stages:"]
    lines += [f"    {line}" for line in textwrap.dedent(stages).strip().splitlines()]
    lines += [f"  outputs: {outputs}", rest]
    return dag.load_yaml("\n".join(lines), file="w.yaml", registry=REGISTRY)


def executed(graph: dag.Graph, **inputs: Any) -> tuple[Any, set[str]]:
    def call(function: Function, arguments: dict[str, Any]) -> Any:
        assert function.call is not None
        return function.call(**arguments)

    return run(graph, inputs, call)


@dag.workflow
def step(q: str, thoughts: list[str] = []) -> Any:  # noqa: B006 - captured as a constant
    thoughts = EXTEND(thoughts, q)
    return {"thoughts": thoughts, "done": adjoin.size(thoughts) >= 3}


STEP = """
  workflows:
    step:
      inputs: {q: string, thoughts: {type: "list[string]", default: []}}
      stages: {thoughts: {uses: extend, with: {thoughts: "${inputs.thoughts}", q: "${inputs.q}"}}}
      outputs: {thoughts: "${thoughts}", done: "${size(thoughts) >= 3}"}
"""
