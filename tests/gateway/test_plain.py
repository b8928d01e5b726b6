"""Models that callers may use as they are."""

from __future__ import annotations

import pytest

from adjoin.errors import InputError, NotFound, QuotaExceeded
from adjoin.runtime.gateway.lanes import Lanes
from adjoin.runtime.gateway.plain import PlainModels
from adjoin.settings import Settings


def plain_models(settings: Settings) -> PlainModels:
    return PlainModels(settings, Lanes(settings, lambda: None))


def test_each_tenant_asks_a_model_through_a_gate_of_its_own() -> None:
    models = plain_models(Settings(tenant_runs=3))
    one, other = (models.find(tenant, "smollm2-135m", "generate") for tenant in ("a", "b"))
    assert one.gate is not other.gate and one.gate.lane is other.gate.lane
    assert one is models.find("a", "smollm2-135m", "generate")
    assert (one.gate.limits.concurrency, one.name) == (3, "smollm2-135m")
    assert one.runnable.version == other.runnable.version
    assert one.runnable.model_names() == {"smollm2-135m"}


def test_what_is_not_allowed_or_of_another_kind() -> None:
    models = plain_models(Settings(allowed_models=("org/name",)))
    assert models.names() == ["minilm", "org/name", "smollm2-135m"]
    assert models.find("a", "org/name", "embed").name == "org/name"
    with pytest.raises(NotFound):
        models.find("a", "org/other", "embed")
    with pytest.raises(InputError):
        models.find("a", "minilm", "generate")


def test_callers_cannot_name_models_without_end() -> None:
    models = plain_models(Settings(allowed_models=("*",)))
    assert "*" not in models.names()
    for number in range(1000):
        models.find("a", f"org/name-{number}", "embed")
    with pytest.raises(QuotaExceeded):
        models.find("a", "org/one-more", "embed")
    models.find("b", "org/name-7", "generate")
    models.find("b", "minilm", "embed")
