"""Which protocol is better, from numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adjoin.runtime.policies.links import Link, advise

MB = 10**6


def link(
    protocol: str, small: float, large: float, channel: str = "remote", names: str = "ab"
) -> Link:
    """``small`` and ``large`` are milliseconds for 8 bytes and 64 MB."""
    return Link(
        protocol=protocol,
        channel=channel,
        one=names[0],
        other=names[1],
        same_host=channel == "shm",
        seconds={8: small / 1e3, 64 * MB: large / 1e3},
    )


def test_what_a_link_is_worth() -> None:
    made = link("tcp", 0.5, 32)
    assert made.round_trip == pytest.approx(0.0005)
    assert made.bandwidth == pytest.approx(2e9)


@pytest.mark.parametrize(
    ("tcp", "ucx", "better", "why"),
    [
        ((0.4, 30), (1.6, 60), "tcp", "it is faster"),
        ((0.4, 30), (0.2, 10), "ucx", "it is faster"),
        ((0.4, 30), (0.39, 10), "ucx", "it is faster"),  # equal for small ones
        ((0.39, 30), (0.4, 10), "ucx", "it is faster"),
        ((0.4, 30), (0.2, 29), "ucx", "it is faster"),
        ((0.4, 30), (0.39, 29), "tcp", "they are equal"),  # noise
        ((0.4, 30), (0.4, 30), "tcp", "they are equal"),
    ],
)
def test_the_faster_one_is_better(
    tcp: tuple[float, float], ucx: tuple[float, float], better: str, why: str
) -> None:
    shared = [link(name, 0.3, 20, channel="shm") for name in ("tcp", "ucx")]
    advice = advise([link("ucx", *ucx), link("tcp", *tcp), *shared])
    assert advice.protocol == better
    assert advice.why.startswith(f"{why}: ")
    assert f"{tcp[1]:.2f} ms over tcp, {ucx[1]:.2f} ms over ucx" in advice.why


def test_between_machines_a_typical_value_decides_what_neither_wins() -> None:
    """UCX is worth its latency from some size on: here 1 MB takes 0.9 and 1.7, 1.5 and 1.1 ms."""
    slow_start = [link("tcp", 0.4, 30), link("ucx", 1.6, 10)]
    assert advise(slow_start).protocol == "tcp"
    fat = [link("tcp", 0.4, 70), link("ucx", 1.0, 10)]
    advice = advise(fat)
    assert advice.protocol == "ucx"
    assert advice.why.startswith("it is faster for values of 1 MB")


def test_where_values_pass_by_shared_memory_small_messages_decide() -> None:
    """The same figures as above, of one machine."""
    comms = [link("tcp", 0.4, 70), link("ucx", 1.0, 10)]
    shared = [link(name, 0.3, 20, channel="shm") for name in ("tcp", "ucx")]
    advice = advise([*comms, *shared])
    assert advice.protocol == "tcp"
    assert "shared memory" in advice.why
    other_pair = [link("tcp", 0.4, 70, names="bc"), link("ucx", 1.0, 10, names="bc")]
    assert advise([*comms, *shared, *other_pair]).protocol == "ucx", "one link has none"


def test_one_bad_link_of_three_decides_nothing() -> None:
    tcp = [link("tcp", 0.4, 30, names=names) for names in ("ab", "bc", "cd")]
    ucx = [link("ucx", 0.2, 10, names="ab"), link("ucx", 0.2, 10, names="bc")]
    assert advise([*tcp, *ucx, link("ucx", 50, 900, names="cd")]).protocol == "ucx"


def test_what_was_not_measured_is_not_compared() -> None:
    assert advise([]).protocol == ""
    alone = advise([link("ucx", 1, 1), link("tcp", 1, 1, channel="shm")])
    assert (alone.protocol, alone.why) == ("ucx", "only ucx was measured")


milliseconds = st.floats(0.01, 1000)


@given(st.lists(st.tuples(st.sampled_from(["tcp", "ucx"]), milliseconds, milliseconds), min_size=1))
def test_neither_the_order_nor_the_speed_of_the_machine_decides(
    measured: list[tuple[str, float, float]],
) -> None:
    links = [link(*each) for each in measured]
    found = advise(links)
    assert found.protocol in {name for name, *_ in measured}
    assert advise(links[::-1]) == found
    faster = [
        link(name, small / 4, large / 4) for name, small, large in measured
    ]  # exact in binary
    assert advise(faster).protocol == found.protocol


@given(milliseconds, milliseconds, st.floats(1.2, 100), st.floats(1.2, 100))
def test_what_is_slower_for_all_sizes_is_never_better(
    small: float, large: float, more: float, much_more: float
) -> None:
    for fast, slow in (("tcp", "ucx"), ("ucx", "tcp")):
        links = [link(fast, small, large), link(slow, small * more, large * much_more)]
        assert advise(links).protocol == fast
