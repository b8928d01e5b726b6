"""What of a stage decides its costs, wherever it runs."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping

import msgspec

from adjoin.dag import Graph, Literal, Stage
from adjoin.dag.binding import references
from adjoin.dag.names import INPUTS


class Facts(msgspec.Struct, frozen=True):
    """Of one stage.

    Attributes:
        kind: function and model: what takes a given time for given sizes.
        use: the kind with its arguments: what makes a given size of given sizes.
        roots: the stages, and the inputs (``inputs.name``), whose values it takes.
        models: sources of the models that it and the stages of its nested workflow use.
        most: the largest number of tokens that it may generate; None when nothing says.
    """

    stage: str
    function: str
    kind: str
    use: str
    roots: tuple[str, ...]
    models: frozenset[str] = frozenset()
    collections: frozenset[str] = frozenset()
    most: int | None = None


@functools.lru_cache(maxsize=256)
def facts_of(graph: Graph) -> Mapping[str, Facts]:
    """The facts of each stage, in the graph's order."""
    return {stage.id: _facts(graph, stage) for stage in graph.stages}


def source_of(graph: Graph, model: str) -> str:
    """What the model store resolves for a model's name in the workflow."""
    return graph.models[model].source if model in graph.models else model


def _facts(graph: Graph, stage: Stage) -> Facts:
    function = stage.function
    kind = function.ref
    if not function.is_builtin:
        kind += f"@{function.digest[:12]}"
    if stage.model is not None:
        kind += f" {source_of(graph, stage.model)}"
    if stage.collection is not None:
        kind += f" {stage.collection}"
    parts = (stage.bindings, stage.each, stage.repeat)
    text = msgspec.json.encode(parts, order="deterministic")
    use = f"{kind} {hashlib.blake2b(text, digest_size=8).hexdigest()}"
    # Time is linear in tokens for one call only: several samples, elements or iterations overlap.
    alone = stage.each is None and stage.repeat is None and "n" not in stage.bindings
    return Facts(
        stage=stage.id,
        function=function.ref,
        kind=kind if alone and function.graph is None else use,
        use=use,
        roots=tuple(sorted(set(_roots(stage)))),
        models=frozenset(source_of(graph, model) for model in stage.models),
        collections=stage.collections,
        most=_most(stage),
    )


def _roots(stage: Stage) -> Iterator[str]:
    for site in stage.sites:
        for reference in references(site.binding):
            if reference.root in site.names:
                continue
            if reference.root != INPUTS:
                yield reference.root
            elif reference.path:
                yield f"{INPUTS}.{reference.path[0]}"


def _most(stage: Stage) -> int | None:
    bound = stage.bindings.get("max_tokens")
    if bound is None and (found := stage.function.parameter("max_tokens")) is not None:
        bound = found.default
    value = bound.value if isinstance(bound, Literal) else None
    alone = stage.each is None and stage.repeat is None and "n" not in stage.bindings
    return value if alone and isinstance(value, int) else None
