"""How fast values pass between two workers: their agents measure it, by the channels of runs.

An agent has a value behind each id ``probe:BYTES:NUMBER``. What another agent does with it is what
it does with a run's value, so nothing is measured that a run does not do.
"""

from __future__ import annotations

import functools
import itertools
import re
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adjoin.errors import InputError, NotFound, TransportError
from adjoin.runtime import protocol as p
from adjoin.runtime.policies.links import Link
from adjoin.runtime.policies.topology import Topology, Worker
from adjoin.transport import codec
from adjoin.transport.channel import Unreachable, ValueChannel
from adjoin.transport.codec import Encoded

if TYPE_CHECKING:
    from adjoin.runtime.cluster import Cluster

#: Bytes: a small message, and large values.
SIZES = (8, 16_000_000, 64_000_000)
REPEATS = 9
MOST_BYTES = 64_000_000
_MOST_REPEATS = 100
#: Links of a large cluster that are looked at.
_MOST_LINKS = 16
_ID = re.compile(r"probe:(\d{1,9}):\d{1,9}")


def sample(id: str) -> Encoded | None:
    """The value behind a probe's id; None for any other id."""
    found = _ID.fullmatch(id)
    if found is None:
        return None
    return codec.encode(_ones(min(int(found[1]), MOST_BYTES)))


@functools.lru_cache(maxsize=1)  # a probe ends with a small one, which takes its place
def _ones(nbytes: int) -> np.ndarray[Any, Any]:
    return np.ones(nbytes, np.uint8)


async def probe(channels: Sequence[ValueChannel], request: p.Probe) -> dict[str, dict[int, float]]:
    """Seconds by channel and size, of the channels that reach the peer; medians.

    Raises:
        InputError: sizes or repeats are out of bounds.
        TransportError: the peer is gone.
    """
    if not request.sizes or max(request.sizes) > MOST_BYTES or min(request.sizes) < 1:
        raise InputError(f"a probe has sizes from 1 to {MOST_BYTES} bytes")
    if not 1 <= request.repeats <= _MOST_REPEATS:
        raise InputError(f"a probe is repeated 1 to {_MOST_REPEATS} times")
    found: dict[str, dict[int, float]] = {}
    for channel in channels:
        try:
            found[channel.name] = {
                size: await _median(channel, request.peer, size, request.repeats)
                for size in sorted(request.sizes, reverse=True)
            }
        except Unreachable:
            continue
    return found


async def _median(channel: ValueChannel, peer: str, size: int, repeats: int) -> float:
    times = []
    for number in range(repeats + 2):  # the first ones connect, and touch fresh memory
        began = time.perf_counter()
        array = codec.decode(await channel.fetch(f"probe:{size}:{number}", peer))
        total = int(np.count_nonzero(array))
        times.append(time.perf_counter() - began)
        if total != size:
            raise TransportError(f"{total} of {size} bytes came", where=peer)
        del array
    return statistics.median(times[2:])


def pairs(topology: Topology) -> list[tuple[Worker, Worker]]:
    """Each worker and the next one, in the order of their names; at most some links."""
    workers = topology.workers
    return list(itertools.pairwise(workers))[:_MOST_LINKS]


async def measure_links(cluster: Cluster) -> list[Link]:
    """One link after another, so that they do not disturb each other.

    Raises:
        NotFound: there are no two workers.
    """
    topology = await cluster.complete()
    found = []
    for one, other in pairs(topology):
        request = p.Probe(peer=one.address, sizes=SIZES, repeats=REPEATS)
        for channel, seconds in (await cluster.call(other.name, request)).items():
            found.append(
                Link(
                    protocol=one.address.partition("://")[0],
                    channel=channel,
                    one=one.name,
                    other=other.name,
                    same_host=one.host == other.host,
                    seconds={int(size): taken for size, taken in seconds.items()},
                )
            )
    if not found:
        raise NotFound(
            "the cluster has no two workers to measure a link between",
            where=cluster.address,
            hint="start another worker",
        )
    return found
