"""Fair shares: whatever comes, nobody who waits gets less than its share by more than one run."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from adjoin.runtime.policies.fair_share import AGE_S, Claim, FairQueue, Waiting

TENANTS = ("a", "b", "c")
_numbers = itertools.count()


def waiting(tenant: str, cost: float = 1.0, **more: object) -> Waiting:
    fields = {"weight": 1.0, "width": 1, "rank": 1, **more}
    group, since = fields.pop("group", 0), fields.pop("since", 0.0)
    claim = Claim(tenant=tenant, cost=cost, **fields)  # type: ignore[arg-type]
    return Waiting(next(_numbers), group, claim, since)  # type: ignore[arg-type]


def started(queue: FairQueue, count: int, now: float = 0.0) -> Iterator[Waiting]:
    for _ in range(count):
        run = queue.next(now, lambda _: True, lambda _: True)
        assert run is not None
        yield run


def queue_of(*runs: Waiting) -> FairQueue:
    queue = FairQueue()
    for run in runs:
        queue.arrive(run)
    return queue


COSTS = st.lists(st.floats(0.5, 100), min_size=30, max_size=60)
WEIGHTS = st.fixed_dictionaries({tenant: st.floats(0.1, 10) for tenant in TENANTS})


@given(COSTS, COSTS, WEIGHTS)
def test_who_has_runs_waiting_gets_its_share_but_for_one_run(
    first: list[float], second: list[float], weights: dict[str, float]
) -> None:
    """The bound of start-time fair queueing: l_a / w_a + l_b / w_b."""
    queue = queue_of(
        *(waiting("a", cost, weight=weights["a"]) for cost in first),
        *(waiting("b", cost, weight=weights["b"]) for cost in second),
    )
    got: Counter[str] = Counter()
    bound = max(first) / weights["a"] + max(second) / weights["b"]
    left = {"a": len(first), "b": len(second)}
    while all(left.values()):
        (run,) = started(queue, 1)
        got[run.claim.tenant] += run.claim.cost  # type: ignore[assignment]
        left[run.claim.tenant] -= 1
        assert abs(got["a"] / weights["a"] - got["b"] / weights["b"]) <= bound * (1 + 1e-9)


@given(st.lists(st.sampled_from(TENANTS), min_size=1, max_size=60))
def test_something_always_starts_while_something_waits(tenants: list[str]) -> None:
    queue = queue_of(*(waiting(tenant) for tenant in tenants))
    found = list(started(queue, len(tenants)))
    assert Counter(run.claim.tenant for run in found) == Counter(tenants)
    assert len(queue) == 0
    for tenant in TENANTS:  # each tenant's own come in the order in which they came
        numbers = [run.number for run in found if run.claim.tenant == tenant]
        assert numbers == sorted(numbers)


def test_a_tenant_that_sends_ten_times_as_much_gets_no_more() -> None:
    queue = queue_of(*(waiting("greedy") for _ in range(100)), *(waiting("small") for _ in "12345"))
    first = Counter(run.claim.tenant for run in started(queue, 10))
    assert first == {"greedy": 5, "small": 5}


def test_who_had_nothing_to_do_has_saved_nothing_up() -> None:
    queue = queue_of(*(waiting("a") for _ in range(100)))
    list(started(queue, 50))
    for _ in range(20):
        queue.arrive(waiting("late"))
    assert Counter(run.claim.tenant for run in started(queue, 20)) == {"a": 10, "late": 10}


def test_weights_are_shares() -> None:
    runs = [waiting(tenant, weight=weight) for tenant, weight in (("a", 3.0), ("b", 1.0))]
    queue = queue_of(*(waiting(r.claim.tenant, weight=r.claim.weight) for r in runs * 40))
    assert Counter(run.claim.tenant for run in started(queue, 40)) == {"a": 30, "b": 10}


def test_what_a_run_really_cost_is_made_up_for() -> None:
    """Tenant a's runs are expected to cost 1 and cost 9."""
    queue = queue_of(*(waiting("a") for _ in range(50)), *(waiting("b") for _ in range(50)))
    found: Counter[str] = Counter()
    for run in started(queue, 40):
        found[run.claim.tenant] += 1
        queue.settle(run.claim, 9.0 if run.claim.tenant == "a" else 1.0)
    assert math.isclose(found["a"] * 9, found["b"], rel_tol=0.2), found


def test_classes_come_one_after_the_other() -> None:
    queue = queue_of(
        *(waiting("a", rank=rank) for rank in (2, 1, 0, 2, 1, 0)),
        *(waiting("b", rank=rank) for rank in (2, 1, 0)),
    )
    assert [run.claim.rank for run in started(queue, 9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_nobody_waits_for_ever() -> None:
    """One of the lowest class, while runs of the highest never end to come."""
    queue = queue_of(waiting("low", rank=2, since=0.0))
    for second in range(int(3 * AGE_S)):
        queue.arrive(waiting("high", rank=0, since=float(second)))
        queue.arrive(waiting("high", rank=0, since=float(second)))
        (run,) = started(queue, 1, now=float(second))
        if run.claim.tenant == "low":
            assert second >= 2 * AGE_S
            assert run.claim.rank == 0, "it is charged in the class that it came up to"
            return
    raise AssertionError("it never started")


def test_a_workflow_that_is_full_holds_back_nobody_else() -> None:
    queue = queue_of(waiting("a", group=1), waiting("a", group=2), waiting("b", group=1))
    run = queue.next(0.0, lambda _: True, lambda run: run.group == 2)
    assert run is not None and (run.claim.tenant, run.group) == ("a", 2)
    assert queue.next(0.0, lambda _: True, lambda run: run.group == 2) is None


def test_a_wide_one_is_not_overtaken_for_ever() -> None:
    queue = queue_of(waiting("a", width=4), waiting("b"))
    assert queue.next(0.0, lambda run: run.claim.width <= 3, lambda _: True) is None
    assert [run.claim.width for run in started(queue, 2)] == [4, 1]


def test_who_leaves_is_not_started_and_is_not_charged() -> None:
    first, second, third = (waiting("a") for _ in range(3))
    queue = queue_of(first, second, third)
    queue.leave(second.number)
    assert [run.number for run in started(queue, 2)] == [first.number, third.number]


@given(
    st.lists(st.tuples(st.sampled_from(TENANTS), st.floats(0.5, 20), st.integers(0, 2))),
    st.sampled_from(TENANTS),
    st.integers(0, 2),
)
def test_what_is_before_a_run_is_what_then_starts_before_it(
    others: list[tuple[str, float, int]], tenant: str, rank: int
) -> None:
    queue = queue_of(*(waiting(name, cost, rank=its) for name, cost, its in others))
    new = waiting(tenant, rank=rank)
    expected = queue.ahead(new.claim)
    queue.arrive(new)
    before = itertools.takewhile(
        lambda run: run.number != new.number, started(queue, len(others) + 1)
    )
    # Others' last run before it begins before it and may end after it.
    slack = sum(max((c for n, c, _ in others if n == name), default=0) for name in TENANTS)
    assert abs(sum(run.claim.cost for run in before) - expected) <= slack + 1e-6


def test_tenants_that_are_gone_are_forgotten() -> None:
    queue = FairQueue()
    for number in range(10_000):
        queue.arrive(waiting(f"t{number}"))
        list(started(queue, 1))
    assert len(queue._tags) < 200
