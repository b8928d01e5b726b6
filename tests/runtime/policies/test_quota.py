"""Quotas: nobody gets more than its limit, and who waits as long as it was told is let in."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from adjoin.runtime.policies.quota import (
    DAY_S,
    Account,
    Allowance,
    Bucket,
    Refusal,
    prompt_tokens,
    tokens_of,
)
from adjoin.types import Usage

MINUTE = Allowance(requests_per_minute=60, tokens_per_minute=600)
DAY = Allowance(tokens_per_day=1000)


def opened(allowed: Allowance, now: float = 0.0, epoch: float = 0.0) -> Account:
    return Account().at(allowed, now, epoch)


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 200)), max_size=60),
)
def test_in_no_minute_is_there_more_than_twice_and_over_time_no_more_than_the_limit(
    limit: int, asked: list[tuple[float, float]]
) -> None:
    allowed = Allowance(tokens_per_minute=limit)
    account, now = opened(allowed), 0.0
    granted: list[tuple[float, float]] = []
    for pause, tokens in asked:
        now += pause
        account = account.at(allowed, now, 0.0)
        found = account.reserve(allowed, tokens, 0.0)
        if isinstance(found, Account):
            account = found
            granted.append((now, tokens))
    for begin, _ in granted:
        window = sum(tokens for at, tokens in granted if begin <= at < begin + 60)
        assert window <= 2 * limit * (1 + 1e-9)
    assert sum(tokens for _, tokens in granted) <= limit * (1 + now / 60) * (1 + 1e-9)


@given(st.integers(1, 10_000), st.floats(-1e6, 1e6), st.floats(0, 1e5), st.floats(1e-3, 1))
def test_the_wait_that_is_told_is_exact(limit: int, level: float, now: float, part: float) -> None:
    bucket, amount = Bucket(min(level, limit), now), part * limit
    wait = bucket.wait(limit, amount)
    assert bucket.filled(limit, now + wait).wait(limit, amount) < 1e-3
    if wait > 1:
        assert bucket.filled(limit, now + wait - 1).wait(limit, amount) > 0


def test_what_is_more_than_the_limit_never_comes() -> None:
    found = opened(MINUTE).reserve(MINUTE, 601, 0.0)
    assert isinstance(found, Refusal) and math.isinf(found.wait)
    found = opened(DAY).reserve(DAY, 1001, 0.0)
    assert isinstance(found, Refusal) and math.isinf(found.wait)


def test_what_was_reserved_and_not_used_comes_back_and_what_was_used_beyond_is_owed() -> None:
    account = opened(MINUTE).reserve(MINUTE, 600, 0.0)
    assert isinstance(account, Account)
    assert isinstance(account.reserve(MINUTE, 1, 0.0), Refusal)
    assert isinstance(account.settle(10 - 600).reserve(MINUTE, 590, 0.0), Account)
    owing = account.settle(900 - 600)
    refused = owing.at(MINUTE, 29.0, 0.0).request(MINUTE, 0.0)
    assert isinstance(refused, Refusal) and refused.limit == "tokens_per_minute"
    assert refused.wait == 1.1, "300 are owed, ten a second come, and one is needed"


def test_requests_are_counted_one_by_one() -> None:
    account = opened(MINUTE)
    for _ in range(60):
        found = account.request(MINUTE, 0.0)
        assert isinstance(found, Account)
        account = found
    refused = account.request(MINUTE, 0.0)
    assert refused == Refusal("requests_per_minute", 60, 1.0)
    assert isinstance(account.at(MINUTE, 1.0, 0.0).request(MINUTE, 0.0), Account)


def test_a_day_ends_at_midnight_and_does_not_come_again_when_the_clock_goes_back() -> None:
    noon = 20_000 * DAY_S + DAY_S / 2
    account = opened(DAY, epoch=noon).reserve(DAY, 1000, noon)
    assert isinstance(account, Account)
    assert account.request(DAY, noon) == Refusal("tokens_per_day", 1000, DAY_S / 2)
    tomorrow = account.at(DAY, 0.0, noon + DAY_S)
    assert isinstance(spent := tomorrow.reserve(DAY, 1000, noon + DAY_S), Account)
    assert isinstance(spent.at(DAY, 0.0, noon).reserve(DAY, 1, noon), Refusal)


def test_without_limits_there_are_none() -> None:
    account = opened(Allowance())
    for _ in range(1000):
        found = account.reserve(Allowance(), 1e12, 0.0)
        assert isinstance(found, Account)
        account = found


def test_tokens_are_what_was_read_written_and_embedded() -> None:
    assert tokens_of(Usage(prompt=5, cached=4, generated=3, embedded=2, seconds=9.0)) == 10
    assert prompt_tokens({"a": "x" * 400, "b": [b"x" * 40, {"c": "x" * 4}], "d": 5}) == 111
    assert prompt_tokens("") == 1
