"""adjoin: workflows of model functions, placed next to the state they need.

This is the whole public API; everything else may change. Importing it is light: what needs Dask is
imported when it is first used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjoin.dag import (
    Graph,
    ModelSpec,
    Template,
    Workflow,
    each,
    function,
    size,
    until,
    workflow,
)
from adjoin.errors import (
    AdjoinError,
    AuthError,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    DefinitionError,
    EngineError,
    FunctionError,
    GraphError,
    InputError,
    ModelError,
    NotFound,
    Overloaded,
    PlanError,
    QuotaExceeded,
    StageError,
    StateError,
    TransportError,
    YamlError,
)
from adjoin.types import Event, Message, Passage, StageContext, Token, Usage, Vector

if TYPE_CHECKING:
    from adjoin.runtime.runtime import Runtime
    from adjoin.settings import Settings
    from adjoin.transport.memory import empty

__version__ = "0.1.0"

_LAZY = {
    "Runtime": "adjoin.runtime.runtime",
    "Settings": "adjoin.settings",
    "empty": "adjoin.transport.memory",
}

__all__ = [
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


def load(target: str | Path, settings: Settings | None = None) -> Graph:
    """The graph of ``workflow.yaml``, ``app.py``, ``app.py:name`` or ``module:name``.

    Python beside the file is imported, as ``python app.py`` would: load only what you trust.

    Raises:
        NotFound: there is no such file, module or workflow.
        DefinitionError: the workflow is wrong; a :class:`YamlError` has line and column.
    """
    from adjoin.loading import load_graph
    from adjoin.settings import Settings

    return load_graph(str(target), settings or Settings.load())


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'adjoin' has no attribute {name!r}")
