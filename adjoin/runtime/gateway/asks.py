"""How a run is asked for, beside its inputs: by whom, how urgently, what it may take."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from starlette.requests import Request

from adjoin.runtime.gateway.quotas import Quotas
from adjoin.runtime.policies.budget import Purse
from adjoin.runtime.policies.fair_share import PRIORITIES, Claim
from adjoin.settings import TenantBounds

_URGENCY = re.compile(r"(?:^|[\s,])u=([0-7])(?:[\s,;]|$)")
_NORMAL = PRIORITIES.index("normal")
_LOW = PRIORITIES.index("low")


class Slot:
    """A tenant's place for one more run, taken before its request's body is read. It is given back
    at the end of the ``with`` block, unless a run has it then."""

    def __init__(self, quotas: Quotas, tenant: str) -> None:
        self._quotas = quotas
        self._tenant = tenant
        self._open = True

    def keep(self) -> None:
        """A run has it, and gives it back with :meth:`Quotas.give_run`."""
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._open:
            self._open = False
            self._quotas.give_run(self._tenant)


@dataclass(frozen=True)
class Ask:
    """How a run is asked for.

    Attributes:
        slot: taken before; without one it is taken when the run is accepted.
        timeout_s: seconds that it has in all.
        attended: whether somebody waits for it.
        urgency: of RFC 9218, 0 to 7; None where nothing was said.
        tokens: that it may take at most; None where that is not known.
        width: sequences that it occupies.
        run: what the run will be called.
        purse: the budgets that it is held to.
    """

    slot: Slot | None = None
    timeout_s: float | None = None
    attended: bool = True
    urgency: int | None = None
    tokens: float | None = None
    width: int = 1
    run: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    purse: Purse | None = None

    def claim(self, tenant: str, bounds: TenantBounds, cost: float) -> Claim:
        """What it claims of what it competes for: nothing that its tenant may not."""
        highest = PRIORITIES.index(bounds.priority or "normal")
        rank = highest if self.urgency is None else max(highest, _rank(self.urgency))
        return Claim(
            tenant=tenant,
            weight=bounds.weight or 1.0,
            cost=max(cost, 1e-3),
            width=self.width,
            rank=rank if self.attended or self.urgency is not None else _LOW,
        )


def urgency_of(request: Request) -> int | None:
    """What the header ``Priority`` says (RFC 9218); None when that is nothing we understand."""
    found = _URGENCY.search(request.headers.get("priority", ""))
    return int(found[1]) if found else None


def _rank(urgency: int) -> int:
    """3 is what RFC 9218 takes where nothing is said."""
    if urgency <= 1:
        return 0
    return _NORMAL if urgency <= 4 else _LOW
