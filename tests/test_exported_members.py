"""The public names: adding one is a decision, removing one breaks somebody."""

from __future__ import annotations

import adjoin
import adjoin.functions

PUBLIC = [
    "AdjoinError",
    "AuthError",
    "Cancelled",
    "Conflict",
    "DeadlineExceeded",
    "DefinitionError",
    "EngineError",
    "Event",
    "FunctionError",
    "Graph",
    "GraphError",
    "InputError",
    "Message",
    "ModelError",
    "ModelSpec",
    "NotFound",
    "Overloaded",
    "Passage",
    "PlanError",
    "QuotaExceeded",
    "Runtime",
    "Settings",
    "StageContext",
    "StageError",
    "StateError",
    "Template",
    "Token",
    "TransportError",
    "Usage",
    "Vector",
    "Workflow",
    "YamlError",
    "each",
    "empty",
    "function",
    "load",
    "size",
    "until",
    "workflow",
]


def test_public_names() -> None:
    assert sorted(adjoin.__all__) == PUBLIC
    assert all(hasattr(adjoin, name) for name in PUBLIC)


def test_every_error_is_public() -> None:
    def tree(kind: type[adjoin.AdjoinError]) -> set[str]:
        return {kind.__name__}.union(*(tree(child) for child in kind.__subclasses__()))

    ours = {name for name in tree(adjoin.AdjoinError) if hasattr(adjoin.errors, name)}
    assert ours <= set(adjoin.__all__)


def test_built_in_functions() -> None:
    named = "chunk embed generate parse prompt rerank retrieve select vote"
    assert sorted(adjoin.functions.BUILTINS) == named.split()
