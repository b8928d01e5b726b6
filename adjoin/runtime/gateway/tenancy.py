"""What belongs to whom: names of collections carry their tenant, and graphs use those."""

from __future__ import annotations

import re
from dataclasses import replace

from adjoin.dag import Graph, Literal, Stage, as_function
from adjoin.errors import DefinitionError, InputError
from adjoin.functions.models.catalog import CATALOG
from adjoin.runtime.gateway.keys import DEFAULT_TENANT
from adjoin.runtime.shipping import spec_of
from adjoin.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_SEPARATOR = "."


def stored_name(tenant: str, name: str) -> str:
    """The name under which a tenant's collection is stored.

    The default tenant's are those of the command line. A tenant's name has no dot and neither has
    that of a collection, so no two tenants share one.

    Raises:
        InputError: this cannot name a collection of the service.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:60]!r} cannot name a collection of a service",
            hint="use letters, digits, '_' and '-', at most 32, beginning with a letter or digit",
        )
    return name if tenant == DEFAULT_TENANT else f"{tenant}{_SEPARATOR}{name}"


def shown_name(tenant: str, stored: str) -> str | None:
    """The inverse: None for what is another tenant's."""
    owner, dot, name = stored.partition(_SEPARATOR)
    if not dot:
        return stored if tenant == DEFAULT_TENANT else None
    return name if owner == tenant and tenant != DEFAULT_TENANT else None


def belonging(graph: Graph, tenant: str) -> Graph:
    """The graph as it runs for a tenant: with that tenant's collections.

    Raises:
        InputError: it names a collection that no tenant can have.
    """
    if not graph.collection_names():
        return graph
    return replace(graph, stages=tuple(_stage(stage, tenant) for stage in graph.stages))


def _stage(stage: Stage, tenant: str) -> Stage:
    if (nested := stage.function.graph) is not None and nested.collection_names():
        return replace(stage, function=as_function(belonging(nested, tenant), stage.function.name))
    parameter = stage.function.needs.collection
    if parameter is None or stage.collection is None:
        return stage
    own = Literal(stored_name(tenant, stage.collection))
    return replace(stage, bindings={**stage.bindings, parameter: own})


def check_models(graph: Graph, settings: Settings) -> None:
    """Workflows that come over HTTP name models that the server knows or allows: a name can also be
    a path on this machine, or something to fetch from elsewhere.

    Raises:
        DefinitionError: one is not allowed, and which.
    """
    for name in sorted(graph.model_names()):
        check_model(spec_of(name, graph).source, settings)


def check_model(source: str, settings: Settings) -> None:
    """As :func:`check_models`, of one model."""
    allowed = {*CATALOG, *settings.allowed_models}
    if source not in allowed and "*" not in allowed:
        raise DefinitionError(
            f"the model {source[:100]!r} is not allowed here",
            hint=f"use {', '.join(sorted(allowed))}, or add it to allowed_models",
        )
