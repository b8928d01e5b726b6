"""Which part of a workflow is its answer."""

from __future__ import annotations

from adjoin.dag import Graph


def last_generators(graph: Graph) -> frozenset[str]:
    """Stages whose tokens are the answer: they generate, and nothing after them does."""
    generators = {stage.id for stage in graph.stages if stage.function.ref == "generate"}
    followed: set[str] = set()
    for stage in reversed(graph.stages):
        after = graph.consumers(stage.id)
        if after & generators or after & followed:
            followed.add(stage.id)
    return frozenset(generators - followed)
