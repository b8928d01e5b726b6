"""What may still be consumed: budgets of a run and of its tenant, and who drew on them. Pure.

A budget is kept where it is known best. The driver has a :class:`Purse` with what its run has used,
in the service it draws on the purses of the tenant too. What is left goes along with each call, and
:class:`Pools` hold the requests of a replica to it, from one step of its engine to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from adjoin.errors import QuotaExceeded
from adjoin.functions.engines.base import (
    Account,
    Allowance,
    EmbedRequest,
    GenerateRequest,
    Rate,
    ScoreRequest,
)
from adjoin.types import Usage

_Request = TypeVar("_Request", bound=GenerateRequest | EmbedRequest | ScoreRequest)

#: A token is a token, whichever kind.
TOKENS = Rate()


class Budget(msgspec.Struct, frozen=True, array_like=True):
    """What may be consumed: tokens, or money where there are ``rates``.

    Attributes:
        key: equal for what draws on the same budget, such as ``run:…`` or ``tenant:…``.
        name: for messages, such as ``the run's budget of 500 tokens``.
        left: in tokens, or in units of money.
        rates: by model, in units of money a token; ``rate`` is of the other models.
    """

    key: str
    name: str
    left: float
    rate: Rate = TOKENS
    rates: dict[str, Rate] = {}

    def of(self, model: str) -> Rate:
        return self.rates.get(model, self.rate)


def exceeded(name: str) -> QuotaExceeded:
    """The error of whatever a budget stops."""
    return QuotaExceeded(
        f"{name} is used up", hint="ask for less, or raise the budget", budget=name
    )


def is_budget(error: BaseException) -> bool:
    """Whether a budget stopped it."""
    return isinstance(error, QuotaExceeded) and "budget" in error.details


class Purse:
    """Budgets, and what has been used of them; ``above`` are other purses that it draws on."""

    def __init__(self, budgets: Iterable[Budget] = (), above: Iterable[Purse] = ()) -> None:
        self._budgets = tuple(budgets)
        self._above = tuple(above)
        self._used = dict.fromkeys((budget.key for budget in self._budgets), 0.0)

    def use(self, model: str, usage: Usage) -> None:
        """A call ended and has consumed this."""
        for budget in self._budgets:
            self._used[budget.key] += budget.of(model).of(usage)
        for purse in self._above:
            purse.use(model, usage)

    def left(self) -> tuple[Budget, ...]:
        """Every budget with what is left of it, those above too."""
        own = [
            msgspec.structs.replace(budget, left=budget.left - self._used[budget.key])
            for budget in self._budgets
        ]
        return (*own, *(budget for purse in self._above for budget in purse.left()))

    def allowances(self, model: str) -> tuple[Allowance, ...]:
        """What a call of this model may use."""
        if not (self._budgets or self._above):
            return ()
        return tuple(
            Allowance(budget.key, budget.name, budget.left, budget.of(model))
            for budget in self.left()
        )

    def over(self) -> QuotaExceeded | None:
        """The error of a budget of which more was used than there was."""
        for budget in self.left():
            if budget.left < 0:
                return exceeded(budget.name)
        return None

    def spent_up(self) -> QuotaExceeded | None:
        """The error of a budget of which nothing is left, so that nothing can begin."""
        for budget in self.left():
            if budget.left <= 0:
                return exceeded(budget.name)
        return None


@dataclass(frozen=True)
class Tab:
    """Whom the requests of a stage's call are counted for, and what they may use.

    ``model`` is the source of the model, not the workflow's name for it: prices go by that.
    """

    account: Account = field(default_factory=Account)
    purse: Purse = field(default_factory=Purse)
    model: str = ""

    def stamped(self, request: _Request, waited: float = 0.0) -> _Request:
        """The request, with both; ``waited`` is how long it waited for a replica to be loaded."""
        account = msgspec.structs.replace(self.account, model=self.model, waited=waited)
        allowances = self.purse.allowances(self.model)
        return msgspec.structs.replace(request, account=account, allowances=allowances)

    def use(self, usage: Usage) -> None:
        self.purse.use(self.model, usage)


class _Pool(msgspec.Struct):
    """``left`` is what was there when the first of its requests came, without what has ended."""

    left: float
    drawn: dict[str, float]
    name: str

    @property
    def empty(self) -> bool:
        return sum(self.drawn.values()) >= self.left


class Pools:
    """The requests of one replica that have allowances, and what they have drawn so far."""

    def __init__(self) -> None:
        self._pools: dict[str, _Pool] = {}
        self._allowances: dict[str, tuple[Allowance, ...]] = {}

    @property
    def busy(self) -> bool:
        """Whether any request has an allowance."""
        return bool(self._allowances)

    def enter(self, id: str, allowances: tuple[Allowance, ...]) -> QuotaExceeded | None:
        """Let a request draw on its budgets; the error when nothing is left of one, and then it has
        not entered."""
        for each in allowances:
            pool = self._pools.get(each.key)
            left = each.left if pool is None else min(each.left, pool.left)
            if left <= (0.0 if pool is None else sum(pool.drawn.values())):
                return exceeded(each.name)
        for each in allowances:
            pool = self._pools.setdefault(each.key, _Pool(each.left, {}, each.name))
            # The sender has heard of some that ended, and not of those that are in flight here.
            pool.left = min(pool.left, each.left)
            pool.drawn[id] = 0.0
        if allowances:
            self._allowances[id] = allowances
        return None

    def draw(self, usages: Mapping[str, Usage]) -> dict[str, QuotaExceeded]:
        """Take in what requests have consumed so far, all of it; returns those that have to stop:
        all that draw on a budget of which nothing is left."""
        for id, usage in usages.items():
            for each in self._allowances.get(id, ()):
                self._pools[each.key].drawn[id] = each.rate.of(usage)
        return {
            id: exceeded(pool.name)
            for pool in self._pools.values()
            if pool.empty
            for id in pool.drawn
        }

    def leave(self, id: str, usage: Usage) -> None:
        """A request has ended."""
        for each in self._allowances.pop(id, ()):
            pool = self._pools[each.key]
            del pool.drawn[id]
            pool.left -= each.rate.of(usage)
            if not pool.drawn:
                del self._pools[each.key]
