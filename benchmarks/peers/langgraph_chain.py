"""LangGraph: four nodes in one process, compiled once; with ``checkpoint`` it keeps each state."""

from __future__ import annotations

import sys
from typing import Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from payloads import is_quick, payload, tell, timed


class State(TypedDict):
    kind: str
    value: Any


def main(checkpoint: bool) -> None:
    graph = StateGraph(State)
    graph.add_node("make", lambda state: {"value": payload(state["kind"])})
    graph.add_node("second", lambda state: {"value": state["value"]})
    graph.add_node("third", lambda state: {"value": state["value"]})
    graph.add_node("size", lambda state: {"value": len(state["value"])})
    for source, target in zip(
        (START, "make", "second", "third", "size"),
        ("make", "second", "third", "size", END),
        strict=True,
    ):
        graph.add_edge(source, target)
    compiled = graph.compile(checkpointer=InMemorySaver() if checkpoint else None)
    count = iter(range(1_000_000))

    def run(kind: str) -> Any:
        config = {"configurable": {"thread_id": str(next(count))}}
        return compiled.invoke({"kind": kind, "value": None}, config if checkpoint else None)

    saver = "InMemorySaver" if checkpoint else None
    settings = {"checkpointer": saver, "process": "the caller's"}
    tell(timed(run, quick=is_quick()), "langgraph", settings)


if __name__ == "__main__":
    main("checkpoint" in sys.argv)
