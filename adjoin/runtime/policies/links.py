"""Which protocol is better for a cluster, from how long values took between its workers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import msgspec

#: What carries a value over the cluster's protocol.
COMM = "remote"
#: Differences below this are noise.
NOTABLE = 0.1
#: Bytes of a value that decides where neither protocol is better for all sizes.
TYPICAL = 10**6


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One way from a worker to another. ``seconds`` by bytes of the value: from asking for it until
    every byte is read, the median of several."""

    protocol: str
    channel: str
    one: str
    other: str
    same_host: bool
    seconds: dict[int, float]

    @property
    def round_trip(self) -> float:
        """Seconds for the smallest value that was measured."""
        return self.seconds[min(self.seconds)]

    @property
    def bandwidth(self) -> float:
        """Bytes a second, of the largest value that was measured."""
        return max(self.seconds) / self.seconds[max(self.seconds)]


class Advice(msgspec.Struct, frozen=True):
    """``protocol`` is empty when nothing was measured."""

    protocol: str
    why: str


def advise(links: Sequence[Link]) -> Advice:
    """The protocol whose comm is the faster one; of two that are equal the first in the alphabet,
    which is TCP: it can have TLS, and needs no package of its own."""
    names = sorted({link.protocol for link in links if link.channel == COMM})
    if not names:
        return Advice("", "nothing was measured: it takes two workers")
    if len(names) == 1:
        return Advice(names[0], f"only {names[0]} was measured")
    taken = {name: _comm(links, name) for name in names}
    first, second = names[0], names[1]
    sizes = sorted(taken[first].keys() & taken[second].keys())
    compared = [_compared(taken[first][size], taken[second][size]) for size in sizes]
    facts = _facts(taken, sizes)
    if all(sign >= 0 for sign in compared):
        equal = not any(compared)
        return Advice(first, f"{'they are equal' if equal else 'it is faster'}: {facts}")
    if all(sign <= 0 for sign in compared):
        return Advice(second, f"it is faster: {facts}")
    return _divided(links, taken, facts)


def _divided(links: Sequence[Link], taken: Mapping[str, Mapping[int, float]], facts: str) -> Advice:
    """One is better for small values, the other one for large ones."""
    if _all_share_memory(links):
        better = min(taken, key=lambda name: (taken[name][min(taken[name])], name))
        reason = "values pass by shared memory here, so that small messages are what remains"
    else:
        better = min(taken, key=lambda name: (_predicted(taken[name], TYPICAL), name))
        reason = f"it is faster for values of {_size(TYPICAL)}"
    return Advice(better, f"{reason}: {facts}")


def _comm(links: Sequence[Link], protocol: str) -> dict[int, float]:
    """Medians over the links of this protocol, of the sizes that all of them measured."""
    of = [link.seconds for link in links if (link.protocol, link.channel) == (protocol, COMM)]
    shared = set.intersection(*(set(seconds) for seconds in of))
    return {size: statistics.median(seconds[size] for seconds in of) for size in sorted(shared)}


def _compared(first: float, second: float) -> int:
    """1 when the first is notably faster, -1 when the second is."""
    if first < second * (1 - NOTABLE):
        return 1
    return -1 if second < first * (1 - NOTABLE) else 0


def _all_share_memory(links: Sequence[Link]) -> bool:
    pairs = {(link.protocol, link.one, link.other) for link in links if link.channel == COMM}
    shared = {(link.protocol, link.one, link.other) for link in links if link.channel == "shm"}
    return pairs <= shared


def _predicted(seconds: Mapping[int, float], size: int) -> float:
    """Linear between the smallest and the largest value."""
    low, high = min(seconds), max(seconds)
    if low == high:
        return seconds[low]
    return seconds[low] + (size - low) * (seconds[high] - seconds[low]) / (high - low)


def _facts(taken: Mapping[str, Mapping[int, float]], sizes: Sequence[int]) -> str:
    return "; ".join(
        f"{_size(size)} take "
        + ", ".join(f"{seconds[size] * 1e3:.2f} ms over {name}" for name, seconds in taken.items())
        for size in sizes
    )


def _size(count: int) -> str:
    return f"{count / 10**6:.0f} MB" if count >= 10**6 else f"{count} bytes"
