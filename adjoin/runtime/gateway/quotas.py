"""What each tenant has used of what it may: :mod:`adjoin.runtime.policies.quota` decides."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping

from adjoin.errors import QuotaExceeded
from adjoin.runtime.policies.quota import MINUTE_S, Account, Allowance, Bucket, Refusal
from adjoin.settings import Settings

_WORDS = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "tokens_per_day": "tokens a day",
}

#: What answers tell of limits, with the names that OpenAI's API has for them.
RATE_HEADERS = tuple(
    f"x-ratelimit-{name}-{kind}"
    for kind in ("requests", "tokens")
    for name in ("limit", "remaining", "reset")
)


class Quotas:
    """Accounts of all tenants, in memory. Minutes begin anew with the service; days go on from the
    ledger, see :meth:`go_on`.

    Args:
        clock: seconds, going forward.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._accounts: dict[str, Account] = {}
        self._runs: Counter[str] = Counter()
        self._allowed: dict[str, Allowance] = {}

    @property
    def by_day(self) -> bool:
        """Whether any tenant has a limit of a day."""
        return any(each.tokens_per_day is not None for each in self._settings.tenants.values())

    def go_on(self, used: Mapping[str, int]) -> None:
        """Count the tokens that tenants have used of this day under earlier services."""
        for tenant, tokens in used.items():
            allowed = self._allowance(tenant)
            if allowed.tokens_per_day is not None:
                account = self._account(tenant, allowed)
                self._accounts[tenant] = account.used_before(tokens)

    def request(self, tenant: str) -> None:
        """One more request.

        Raises:
            QuotaExceeded: there are too many, or no tokens are left.
        """
        allowed = self._allowance(tenant)
        found = self._account(tenant, allowed).request(allowed, self._wall())
        self._accounts[tenant] = _granted(found, 1)

    def reserve(self, tenant: str, tokens: float) -> None:
        """Tokens that a run may take; :meth:`settle` says what it took.

        Raises:
            QuotaExceeded: there are not so many left.
        """
        allowed = self._allowance(tenant)
        found = self._account(tenant, allowed).reserve(allowed, tokens, self._wall())
        self._accounts[tenant] = _granted(found, tokens)

    def settle(self, tenant: str, reserved: float, used: float) -> None:
        """A run has ended that reserved so many tokens, and took so many."""
        account = self._account(tenant, self._allowance(tenant))
        self._accounts[tenant] = account.settle(used - reserved)

    def take_run(self, tenant: str, expected_s: float) -> None:
        """Count one more run of a tenant, until :meth:`give_run`.

        Args:
            expected_s: seconds until one may have ended.

        Raises:
            QuotaExceeded: it has as many as it may.
        """
        count, most = self._runs[tenant], self._settings.bounds_of(tenant).runs
        if most is not None and count >= most:
            raise QuotaExceeded(
                f"there are {count} runs at once, which is the most",
                hint="wait for some to end",
                retry_after=expected_s,
            )
        self._runs[tenant] += 1

    def give_run(self, tenant: str) -> None:
        self._runs[tenant] -= 1
        if not self._runs[tenant]:
            del self._runs[tenant]

    def headers(self, tenant: str) -> list[tuple[bytes, bytes]]:
        """What is left of a minute, as OpenAI's clients read it; nothing of what has no limit."""
        allowed = self._allowance(tenant)
        account = self._account(tenant, allowed)
        return [
            *_header("requests", allowed.requests_per_minute, account.requests),
            *_header("tokens", allowed.tokens_per_minute, account.tokens),
        ]

    def _allowance(self, tenant: str) -> Allowance:
        if tenant not in self._allowed:
            found = self._settings.bounds_of(tenant)
            self._allowed[tenant] = Allowance(
                found.requests_per_minute, found.tokens_per_minute, found.tokens_per_day
            )
        return self._allowed[tenant]

    def _account(self, tenant: str, allowed: Allowance) -> Account:
        known = self._accounts.get(tenant, Account())
        return known.at(allowed, self._clock(), self._wall())


def _granted(found: Account | Refusal, asked: float) -> Account:
    if isinstance(found, Account):
        return found
    limit = f"{found.amount} {_WORDS[found.limit]}"
    if math.isinf(found.wait):
        raise QuotaExceeded(
            f"the request may take {asked:.0f} tokens, the tenant has {limit}",
            hint="ask for fewer: shorten the prompt, or lower max_tokens or n",
        )
    raise QuotaExceeded(
        f"the tenant has {limit}, and has used them",
        hint="try again when Retry-After says",
        retry_after=found.wait,
    )


def _header(kind: str, limit: int | None, bucket: Bucket | None) -> list[tuple[bytes, bytes]]:
    if limit is None or bucket is None:
        return []
    left = max(0, math.floor(bucket.level))
    seconds = max(0.0, limit - bucket.level) * MINUTE_S / limit
    values = {"limit": str(limit), "remaining": str(left), "reset": f"{seconds:.3f}s"}
    return [
        (f"x-ratelimit-{name}-{kind}".encode(), value.encode()) for name, value in values.items()
    ]
