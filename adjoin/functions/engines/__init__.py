"""Engines: one Protocol, one adapter a file, found by name and imported only where a model loads.

An adapter is a module with ``warm()``, which imports everything the engine needs and starts nothing
(no thread, no CUDA), and ``load(spec: LoadSpec) -> Engine``. A package adds one through the entry
point group ``adjoin.engines``: its name, and the module.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Protocol, cast

import msgspec

from adjoin.errors import ModelError
from adjoin.functions.engines.base import Engine, LoadSpec, did_you_mean

__all__ = ["Adapter", "Engine", "LoadSpec", "adapters", "choose", "find", "installed"]

_GROUP = "adjoin.engines"


class AdapterModule(Protocol):
    """What the module of an adapter defines."""

    def warm(self) -> None: ...

    def load(self, spec: LoadSpec) -> Engine: ...


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """An engine by name.

    Attributes:
        module: where its ``warm`` and ``load`` are.
        capabilities: what its models can do.
        requires: modules that must be installed.
        files: whether it loads local files; the model store resolves them.
        extra: the extra of this package that installs it.
    """

    name: str
    module: str
    capabilities: frozenset[str] = frozenset({"embed", "generate", "score"})
    requires: tuple[str, ...] = ()
    files: bool = True
    extra: str = ""

    def resolve(self) -> AdapterModule:
        return cast(AdapterModule, importlib.import_module(self.module))


_BUILT_IN = (
    Adapter(
        name="vllm",
        module="adjoin.functions.engines.vllm",
        capabilities=frozenset({"generate"}),
        requires=("vllm",),
        extra="cpu or cuda",
    ),
    Adapter(
        name="transformers",
        module="adjoin.functions.engines.transformers",
        requires=("torch", "transformers", "sentence_transformers"),
        extra="cpu or cuda",
    ),
    Adapter(name="fake", module="adjoin.functions.engines.fake", files=False),
)


@cache
def adapters() -> dict[str, Adapter]:
    """All known engines by name; an entry point cannot take the name of a built-in one."""
    found = {
        entry.name: Adapter(name=entry.name, module=entry.value)
        for entry in entry_points(group=_GROUP)
    }
    return found | {adapter.name: adapter for adapter in _BUILT_IN}


def installed(adapter: Adapter) -> bool:
    return all(find_spec(module) is not None for module in adapter.requires)


def find(name: str) -> Adapter:
    """The engine of that name.

    Raises:
        ModelError: there is none, or what it needs is not installed.
    """
    adapter = adapters().get(name)
    if adapter is None:
        raise ModelError(f"no engine {name!r}", hint=did_you_mean(name, adapters()))
    if not installed(adapter):
        raise ModelError(
            f"engine {name!r} needs {', '.join(adapter.requires)}",
            hint=f"install adjoin with the extra {adapter.extra}",
        )
    return adapter


def choose(kind: str) -> Adapter:
    """The engine for a model of that kind when the user names none."""
    if kind == "generate" and installed(adapters()["vllm"]):
        return find("vllm")
    return find("transformers")
