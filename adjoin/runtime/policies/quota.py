"""What a tenant may ask for in a minute and in a day. Pure: the time is an argument.

Token buckets (RFC 2697 has the idea) that are filled continuously and hold what may be used in one
of their periods. Unlike in a fixed window, nobody can take twice the limit around the turn of a
minute, and when there is enough again follows from the level alone. A day's tokens are counted from
midnight UTC, as a bill is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from adjoin.types import Usage

MINUTE_S = 60.0
DAY_S = 86_400.0
#: Who waits as long as was said must not miss by a bit of a float.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Allowance:
    """Of one tenant; None is without a limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None


@dataclass(frozen=True)
class Bucket:
    """What there was at a time, in seconds; less than 0 when more was used than was foreseen."""

    level: float
    at: float = 0.0

    def filled(self, limit: float, now: float) -> Bucket:
        """As it is now, with ``limit`` more for each minute."""
        passed = max(0.0, now - self.at)
        return Bucket(min(limit, self.level + passed * limit / MINUTE_S), max(now, self.at))

    def wait(self, limit: float, amount: float) -> float:
        """Seconds until there is so much; infinite when there never is."""
        if amount > limit:
            return math.inf
        missing = amount - self.level
        return 0.0 if missing < _ROUNDING else missing * MINUTE_S / limit

    def less(self, amount: float) -> Bucket:
        return replace(self, level=self.level - amount)


@dataclass(frozen=True)
class Refusal:
    """Which limit, how much that is, and the seconds until asking again may help."""

    limit: str
    amount: int
    wait: float


@dataclass(frozen=True)
class Account:
    """What one tenant has used. ``day`` counts from the epoch; it never goes back, also when the
    clock does."""

    requests: Bucket | None = None
    tokens: Bucket | None = None
    day: int = 0
    day_tokens: float = 0.0

    def at(self, allowed: Allowance, now: float, epoch: float) -> Account:
        """As it is at a time: ``now`` in seconds of a clock that only goes forward, ``epoch`` of
        the one on the wall."""
        day = max(self.day, int(epoch // DAY_S))
        return Account(
            requests=_filled(self.requests, allowed.requests_per_minute, now),
            tokens=_filled(self.tokens, allowed.tokens_per_minute, now),
            day=day,
            day_tokens=self.day_tokens if day == self.day else 0.0,
        )

    def request(self, allowed: Allowance, epoch: float) -> Account | Refusal:
        """One more request, of an account that is :meth:`at` now. Refused also when there are no
        tokens left, whatever the request is."""
        limit = allowed.requests_per_minute
        if limit is not None and self.requests is not None:
            if wait := self.requests.wait(limit, 1):
                return Refusal("requests_per_minute", limit, wait)
            counted = replace(self, requests=self.requests.less(1))
        else:
            counted = self
        return self._no_tokens(allowed, 1, epoch) or counted

    def reserve(self, allowed: Allowance, tokens: float, epoch: float) -> Account | Refusal:
        """So many tokens, which a request may take at most; :meth:`settle` says what it took."""
        return self._no_tokens(allowed, tokens, epoch) or self.settle(tokens)

    def settle(self, tokens: float) -> Account:
        """So many more were used; fewer, when it is negative."""
        bucket = None if self.tokens is None else self.tokens.less(tokens)
        return replace(self, tokens=bucket, day_tokens=max(0.0, self.day_tokens + tokens))

    def used_before(self, tokens: float) -> Account:
        """So many were used this day before anybody counted here; minutes do not reach so far."""
        return replace(self, day_tokens=self.day_tokens + tokens)

    def _no_tokens(self, allowed: Allowance, tokens: float, epoch: float) -> Refusal | None:
        limit = allowed.tokens_per_minute
        if limit is not None and self.tokens and (wait := self.tokens.wait(limit, tokens)):
            return Refusal("tokens_per_minute", limit, wait)
        limit = allowed.tokens_per_day
        if limit is not None and self.day_tokens + tokens > limit:
            wait = math.inf if tokens > limit else max(0.0, (self.day + 1) * DAY_S - epoch)
            return Refusal("tokens_per_day", limit, wait)
        return None


def _filled(bucket: Bucket | None, limit: int | None, now: float) -> Bucket | None:
    if limit is None:
        return None
    return (bucket or Bucket(limit, now)).filled(limit, now)


def tokens_of(usage: Usage) -> int:
    """What counts of a run: read, written and embedded. Cached prompts count, as they do for
    OpenAI's limits: what a tenant may send must not depend on what others have sent before."""
    return usage.prompt + usage.generated + usage.embedded


def prompt_tokens(value: Any) -> float:
    """About how many tokens the texts in a value are, at least 1: English has four characters to
    one, other languages fewer; what was wrong is put right when the run has ended."""
    return max(1.0, _characters(value) / 4)


def _characters(value: Any) -> int:
    total, level = 0, [value]
    while level:
        item = level.pop()
        if isinstance(item, str | bytes):
            total += len(item)
        elif isinstance(item, Mapping):
            level.extend(item.values())
        elif isinstance(item, Iterable):
            level.extend(item)
    return total
