"""Models as workflows of one stage: so that their calls are runs like all others."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

from adjoin.dag import Binding, Function, Graph, Parameter, Reference, Stage, build
from adjoin.dag import Literal as Constant
from adjoin.dag import datatypes as dt
from adjoin.errors import InputError, NotFound, QuotaExceeded
from adjoin.functions import BUILTINS
from adjoin.functions.completion import COMPLETE
from adjoin.functions.models.catalog import CATALOG
from adjoin.runtime.gateway.deployments import Deployment
from adjoin.runtime.gateway.gate import Gate
from adjoin.runtime.gateway.lanes import Lanes
from adjoin.runtime.policies.admission import Limits
from adjoin.settings import Settings

Use: TypeAlias = Literal["generate", "embed"]

#: With ``*`` in allowed_models callers choose names, which metrics and usage remember.
_MAX_NAMES = 1000
_EVERY = "*"


class PlainModels:
    """The models that callers may use as they are, each tenant through a gate of its own into the
    lane of the model, where they wait with workflows that ask the same one."""

    def __init__(self, settings: Settings, lanes: Lanes) -> None:
        self._lanes = lanes
        self._settings = settings
        self._allowed = frozenset({*CATALOG, *settings.allowed_models}) - {_EVERY}
        self._every = _EVERY in settings.allowed_models
        self._others: set[str] = set()
        self._known: dict[tuple[str, str, Use], Deployment] = {}

    def names(self) -> list[str]:
        """Those that can be named, in order."""
        return sorted(self._allowed)

    def allows(self, name: str) -> bool:
        return self._every or name in self._allowed

    def find(self, tenant: str, name: str, use: Use) -> Deployment:
        """The workflow that asks this model.

        Raises:
            NotFound: there is no such model, or the server does not allow it.
            InputError: the model is of another kind.
            QuotaExceeded: callers have named too many models.
        """
        key = (tenant, name, use)
        if key in self._known:
            return self._known[key]
        self._check(name, use)
        graph = _graph(name, use)
        limits = Limits(
            concurrency=self._settings.bounds_of(tenant).runs or 1,
            queue=self._settings.serve_queue,
            patience=self._settings.serve_patience or None,
        )
        shown = replace(graph, name=name)
        found = Deployment(
            tenant=tenant,
            graph=shown,
            runnable=graph,
            gate=Gate(limits, self._lanes.of(graph)),
            revision=1,
        )
        self._known[key] = found
        return found

    def _check(self, name: str, use: Use) -> None:
        if not self.allows(name):
            raise NotFound(
                f"there is no model {name[:100]!r}",
                where="model",
                hint="GET /v1/models lists those that there are",
            )
        entry = CATALOG.get(name)
        if entry is not None and entry.kind != use:
            raise InputError(f"the model {name!r} does not {use}", where="model")
        if name not in self._allowed:
            self._others.add(name)
            if len(self._others) > _MAX_NAMES:
                self._others.discard(name)
                raise QuotaExceeded(
                    f"more than {_MAX_NAMES} models have been named",
                    where="model",
                    hint="list those that are wanted in allowed_models",
                )


def _graph(model: str, use: Use) -> Graph:
    if use == "generate":
        return _single("chat", COMPLETE, "request", model)
    return _single("embed", BUILTINS["embed"], "texts", model)


def _single(name: str, function: Function, argument: str, model: str) -> Graph:
    """One stage with one input that is checked before: here it passes as it is."""
    given: dict[str, Binding] = {argument: Reference("inputs", (argument,))}
    stage = Stage("answer", function, {**given, "model": Constant(model)}, function.policy)
    return build(
        name,
        inputs=[Parameter(argument, dt.ANY)],
        stages=[stage],
        outputs={"output": Reference("answer")},
        bare=True,
    )
