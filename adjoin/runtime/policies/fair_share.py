"""Whose run starts next where runs of several tenants wait for one thing. Pure: no clock.

Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) by tokens. As in the virtual token
counter ("Fairness in Serving Large Language Models", OSDI 2024), what a run costs is known when it
has ended: it is charged what it is expected to cost when it starts, and the difference at its end.
Between two tenants that both have runs waiting, the tokens that they got, each over its weight,
differ by no more than what their runs in flight cost.

Classes come strictly one after the other; a run that waits goes up one class every
:data:`AGE_S` seconds, so that none waits for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Priority: TypeAlias = Literal["high", "normal", "low"]
#: The most urgent first.
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
#: Seconds after which a run that waits counts as one of the class above.
AGE_S = 30.0
#: Tags of tenants that have nothing waiting.
_REMEMBERED = 64


@dataclass(frozen=True)
class Claim:
    """What a run asks for.

    Attributes:
        tenant: whose share it takes from; ``weight`` is how large that is beside others'.
        cost: tokens that it is expected to take, more than 0.
        width: sequences that it occupies.
        rank: its class, an index of :data:`PRIORITIES`.
    """

    tenant: str = ""
    weight: float = 1.0
    cost: float = 1.0
    width: int = 1
    rank: int = 1


@dataclass(frozen=True)
class Waiting:
    """A run that waits, under a number that grows with each arrival; ``group`` is what may hold it
    back although there is room: its workflow, which runs only so many at once."""

    number: int
    group: int
    claim: Claim
    since: float


@dataclass
class _Line:
    """The runs of one tenant, class and group, in the order in which they came."""

    runs: deque[Waiting] = field(default_factory=deque)
    cost: float = 0.0


class FairQueue:
    """What waits for one thing, in the order in which it is to start.

    Within one line (a tenant's runs of one class and group) it is that of arrival.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int, int], _Line] = {}
        self._where: dict[int, tuple[str, int, int]] = {}
        #: Virtual time of each class: the start tag of what started last in it.
        self._time = [0.0] * len(PRIORITIES)
        #: Finish tags: where each tenant's next run of a class begins, in virtual time.
        self._tags: dict[tuple[int, str], float] = {}

    def __len__(self) -> int:
        return len(self._where)

    def arrive(self, run: Waiting) -> None:
        key = (run.claim.tenant, run.claim.rank, run.group)
        line = self._lines.setdefault(key, _Line())
        line.runs.append(run)
        line.cost += run.claim.cost
        self._where[run.number] = key

    def leave(self, number: int) -> None:
        """One that waits does not want to any more."""
        key = self._where[number]
        run = next(run for run in self._lines[key].runs if run.number == number)
        self._take(key, run)

    def next(
        self, now: float, fits: Callable[[Waiting], bool], free: Callable[[Waiting], bool]
    ) -> Waiting | None:
        """Take out and charge what starts now, if anything does; its class is the one that it has
        come up to.

        Args:
            fits: whether there is room for this run. The first in the order that does not fit holds
                back those after it, so that a wide one is not overtaken for ever.
            free: whether its group may start one more; those that may not hold nobody back.
        """
        heads = [(key, line.runs[0]) for key, line in self._lines.items() if free(line.runs[0])]
        if not heads:
            return None
        key, run = min(heads, key=lambda each: self._order(each[1], now))
        if not fits(run):
            return None
        self._take(key, run)
        return replace(run, claim=self._charge(replace(run.claim, rank=self.rank(run, now))))

    def _charge(self, claim: Claim) -> Claim:
        start = self._start(claim.tenant, claim.rank)
        self._time[claim.rank] = start
        self._tags[claim.rank, claim.tenant] = start + claim.cost / claim.weight
        self._forget()
        return claim

    def settle(self, claim: Claim, used: float) -> None:
        """A run that :meth:`next` gave has ended, and took so many tokens."""
        tag = self._tags.get((claim.rank, claim.tenant), self._time[claim.rank])
        self._tags[claim.rank, claim.tenant] = tag + (used - claim.cost) / claim.weight

    def ahead(self, claim: Claim) -> float:
        """The cost of what would start before a run that comes now, were all to go as it stands."""
        same, total = self._backlog(claim.rank), 0.0
        start = self._start(claim.tenant, claim.rank)
        start += same.get(claim.tenant, (0.0, 1.0))[0] / claim.weight
        for tenant, (cost, weight) in same.items():
            behind = max(0.0, start - self._start(tenant, claim.rank)) * weight
            total += cost if tenant == claim.tenant else min(cost, behind)
        above = (self._backlog(rank) for rank in range(claim.rank))
        return total + sum(cost for found in above for cost, _ in found.values())

    @staticmethod
    def rank(run: Waiting, now: float) -> int:
        """The class of a run that has waited so long."""
        return max(0, run.claim.rank - int(max(0.0, now - run.since) / AGE_S))

    def __iter__(self) -> Iterator[Waiting]:
        return (run for line in self._lines.values() for run in line.runs)

    def _order(self, run: Waiting, now: float) -> tuple[int, float, int]:
        rank = self.rank(run, now)
        return rank, self._start(run.claim.tenant, rank), run.number

    def _start(self, tenant: str, rank: int) -> float:
        """The start tag of a tenant's next run: who had nothing to do has saved nothing up."""
        return max(self._time[rank], self._tags.get((rank, tenant), 0.0))

    def _backlog(self, rank: int) -> dict[str, tuple[float, float]]:
        """Cost of what waits, and the weight, of each tenant in a class."""
        found: dict[str, tuple[float, float]] = {}
        for (tenant, its_rank, _), line in self._lines.items():
            if its_rank == rank:
                before = found.get(tenant, (0.0, 1.0))[0]
                found[tenant] = (before + line.cost, line.runs[0].claim.weight)
        return found

    def _take(self, key: tuple[str, int, int], run: Waiting) -> None:
        line = self._lines[key]
        line.runs.remove(run)
        line.cost -= run.claim.cost
        del self._where[run.number]
        if not line.runs:
            del self._lines[key]

    def _forget(self) -> None:
        """Tags that time has passed say nothing; and of tenants that were here once, and took
        little, not everything has to be remembered for ever."""
        most = 2 * len(self._lines) + _REMEMBERED
        if len(self._tags) > 2 * most:
            ahead = {key: tag - self._time[key[0]] for key, tag in self._tags.items()}
            kept = sorted((key for key in ahead if ahead[key] > 0), key=ahead.__getitem__)[-most:]
            self._tags = {key: self._tags[key] for key in kept}
