"""Which tokens are billed, and what they cost. Pure.

A token belongs to a call, a call to an attempt of a stage of a run. Of each stage of a run one
attempt is billed at most, and of each call within it the last try; the others are *wasted*: counted
apart, never billed. A run that has not ended is *open*. It does not matter in which order calls and
ends become known, or how often.

===================================  ==========================================================
how the run ended                    what is billed
===================================  ==========================================================
it succeeded                         of each stage the attempt whose result was recorded
a budget stopped it                  of each stage the last attempt: the budget was for that
it failed, was cancelled or was      of each stage whose tokens the caller has been sent, as a
too slow                             stream, the attempt that said them; otherwise nothing
===================================  ==========================================================
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from adjoin.errors import AdjoinError, root_cause
from adjoin.functions.engines.base import Rate
from adjoin.runtime.policies.budget import is_budget
from adjoin.runtime.usage_records import CallRecord
from adjoin.types import Usage

Standing: TypeAlias = Literal["billed", "wasted", "open"]
_MILLION = 1_000_000


class StageEnd(NamedTuple):
    """A stage when its run ended: its last attempt, whether its result is recorded, whether tokens
    of that attempt were seen, and how long it took, in seconds, when it is recorded."""

    attempt: int
    recorded: bool
    seen: bool
    seconds: float = 0.0


class Billed(NamedTuple):
    """The attempt of a stage that is billed, and its seconds."""

    attempt: int
    seconds: float = 0.0


class Settlement(msgspec.Struct, frozen=True):
    """How a run ended: by stage, the attempt that is billed. ``at`` is in seconds since the
    epoch."""

    run: str
    billed: Mapping[str, Billed]
    tenant: str = ""
    workflow: str = ""
    version: str = ""
    state: str = "succeeded"
    at: float = 0.0


def billed(
    stages: Mapping[str, StageEnd], error: AdjoinError | None, *, streaming: bool
) -> dict[str, Billed]:
    """By stage the attempt that is billed, of a run that ended with this error, or well."""

    def counts(stage: StageEnd) -> bool:
        if error is None:
            return stage.recorded
        if is_budget(root_cause(error)):
            return stage.attempt > 0
        return streaming and stage.seen

    found = {name: stage for name, stage in stages.items() if counts(stage)}
    return {name: Billed(stage.attempt, stage.seconds) for name, stage in found.items()}


Key: TypeAlias = tuple[str, int]


def fold(
    calls: Iterable[tuple[str, CallRecord]], settlements: Iterable[Settlement]
) -> dict[Key, Standing]:
    """How each call stands, by log and number; loads are no calls.

    The ledger's query does the same (:mod:`adjoin.runtime.gateway.ledger`); this one says what is
    meant.
    """
    known = {(log, each.seq): each for log, each in calls if each.outcome != "load"}
    ends = {each.run: each.billed for each in settlements}
    last: dict[tuple[str, str, int, str], int] = defaultdict(int)
    for each in known.values():
        last[_place(each)] = max(last[_place(each)], each.account.tries)
    return {key: _standing(each, ends, last[_place(each)]) for key, each in known.items()}


def _place(call: CallRecord) -> tuple[str, str, int, str]:
    return call.account.run, call.account.stage, call.account.attempt, call.account.place


def _standing(call: CallRecord, ends: Mapping[str, Mapping[str, Billed]], tries: int) -> Standing:
    account = call.account
    if not account.run:  # such as a search: it has no attempts
        return "billed" if call.outcome == "ended" else "wasted"
    if account.run not in ends:
        return "open"
    stage = ends[account.run].get(account.stage)
    right = stage is not None and stage.attempt == account.attempt and account.tries == tries
    return "billed" if right else "wasted"


def shares(loads: Mapping[str, float], waited: Mapping[Key, float]) -> dict[Key, float]:
    """The time that each replica took to load, split over the calls that waited for it, by how long
    they did. What nobody waited for is nobody's."""
    totals: dict[str, float] = defaultdict(float)
    for (log, _), seconds in waited.items():
        totals[log] += seconds
    return {
        (log, seq): loads.get(log, 0.0) * seconds / totals[log]
        for (log, seq), seconds in waited.items()
        if totals[log]
    }


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a million tokens of each kind; ``prompt`` is of those that were not cached. ``cached`` is
    as ``prompt`` where it is not set."""

    prompt: float = 0.0
    generated: float = 0.0
    embedded: float = 0.0
    cached: float | None = None

    @property
    def rate(self) -> Rate:
        """In money a token."""
        cached = self.prompt if self.cached is None else self.cached
        parts = (self.prompt, cached, self.generated, self.embedded)
        return Rate(*(part / _MILLION for part in parts))


class Prices(msgspec.Struct, frozen=True):
    """``models`` by their source, ``default`` for the others; ``hour`` is what an hour of the
    hardware costs."""

    models: dict[str, Price] = {}
    default: Price = Price()
    hour: float = 0.0

    def revenue(self, model: str, usage: Usage) -> float:
        return self.models.get(model, self.default).rate.of(usage)

    def cost(self, seconds: float) -> float:
        return seconds * self.hour / 3600

    @property
    def rates(self) -> dict[str, Rate]:
        return {model: price.rate for model, price in self.models.items()}
