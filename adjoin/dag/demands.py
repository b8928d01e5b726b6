"""What a stage demands of the worker it runs on: resources, neighbours, and whom it avoids."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from adjoin.dag.names import suggest
from adjoin.errors import DefinitionError, GraphError

#: Resources that workers have by themselves; any other name is one of Dask's abstract resources.
KNOWN = ("memory", "threads", "cuda")
MAX_DEMANDS = 64
MAX_AMOUNT = 1e18
MAX_NAME = 256
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)")
_UNITS = {
    "B": 1,
    **{f"{unit}B": 1000 ** (power + 1) for power, unit in enumerate("KMGT")},
    **{f"{unit}iB": 1024 ** (power + 1) for power, unit in enumerate("KMGT")},
}


def resources_of(value: object) -> dict[str, float]:
    """Amounts by name; bytes of memory also as a text such as ``"2GB"`` or ``"512MiB"``.

    Raises:
        DefinitionError: it is no mapping of names to amounts above zero.
    """
    if not isinstance(value, Mapping) or len(value) > MAX_DEMANDS:
        raise DefinitionError(
            "resources must be a mapping of names to amounts", hint='write {memory: "2GB"}'
        )
    found = {}
    for name, amount in value.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise DefinitionError(f"{str(name)[:40]!r} cannot name a resource")
        found[name] = _amount(name, amount)
    return dict(sorted(found.items()))


def _amount(name: str, value: object) -> float:
    amount: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        amount = float(value)
    elif name == "memory" and isinstance(value, str) and (match := _BYTES.fullmatch(value.strip())):
        amount = float(match[1]) * _UNITS[match[2]]
    if amount is None or not math.isfinite(amount) or not 0 < amount <= MAX_AMOUNT:
        raise DefinitionError(
            f"{str(value)[:40]!r} is no amount of {name[:40]!r}",
            hint='write a number above 0; for memory bytes, or a text such as "2GB"',
        )
    return amount


def names_of(value: object, what: str) -> tuple[str, ...]:
    """One name or several, each once, in alphabetical order.

    Raises:
        DefinitionError: it is neither.
    """
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, Iterable) or isinstance(given, Mapping | bytes):
        raise DefinitionError(f"{what} must be a name or a list of names")
    found = list(given)
    if len(found) > MAX_DEMANDS or not all(
        isinstance(name, str) and 0 < len(name) <= MAX_NAME for name in found
    ):
        raise DefinitionError(f"{what} must be a name or a list of at most {MAX_DEMANDS} names")
    return tuple(sorted(set(found)))


def neighbours(colocate: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """For each stage one of those that it is certain to share a worker with, the same for all.

    Args:
        colocate: for each stage those that it names.
    """
    first = {stage: stage for stage in colocate}

    def root(stage: str) -> str:
        while first[stage] != stage:
            stage = first[stage]
        return stage

    for stage, others in colocate.items():
        for other in others:
            one, two = sorted((root(stage), root(other)))
            first[two] = one
    return {stage: root(stage) for stage in colocate}


def check_neighbours(
    stage: str, colocate: tuple[str, ...], avoid: tuple[str, ...], stages: Iterable[str]
) -> None:
    """Raise :class:`GraphError` where a stage's neighbours are none, or contradict each other."""
    known = set(stages)
    for name in colocate:
        details = {"stage": stage, "construct": "colocate"}
        if name not in known:
            raise GraphError(
                f"stage {stage!r}: colocate names no stage {name[:80]!r}",
                hint=suggest(name, known),
                **details,
            )
        if name in avoid:
            raise GraphError(f"stage {stage!r} must be with {name!r} and avoid it", **details)
    if stage in avoid or stage in colocate:
        construct = "avoid" if stage in avoid else "colocate"
        raise GraphError(
            f"stage {stage!r}: {construct} names the stage itself",
            hint="remove it",
            stage=stage,
            construct=construct,
        )
