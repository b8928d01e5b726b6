"""An engine's own figures, in Prometheus's form, as data that can travel.

The names are the engine's: ``vllm:prompt_tokens_total`` means what it does with vLLM's server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

#: Of one replica. vLLM has about a thousand.
MAX_SAMPLES = 5_000
_MAX_TEXT = 500


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One value; ``name`` is the family's, or that with a suffix such as ``_total``."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """Everything of one name, which is ``engine:figure``; ``kind`` is Prometheus's type."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def counter(name: str, help: str, value: float) -> Family:
    """A counter without labels."""
    return Family(name, "counter", help, (Sample(f"{name}_total", {}, value),))


def families(collected: Iterable[Any], prefix: str) -> tuple[Family, ...]:
    """What ``prometheus_client``'s registry collected under names with this prefix.

    When a replica has made more than :data:`MAX_SAMPLES`, the later families are left out whole.
    """
    found: list[Family] = []
    room = MAX_SAMPLES
    for metric in collected:
        if not metric.name.startswith(prefix):
            continue
        samples = tuple(
            Sample(sample.name, _cut(sample.labels), float(sample.value))
            for sample in metric.samples
            # When each counter was made: a second time as many, which nobody asks for.
            if not sample.name.endswith("_created")
        )
        if (room := room - len(samples)) < 0:
            break
        found.append(Family(metric.name, metric.type, metric.documentation[:_MAX_TEXT], samples))
    return tuple(found)


def _cut(labels: dict[str, Any]) -> dict[str, str]:
    return {name: str(value)[:_MAX_TEXT] for name, value in labels.items()}
