"""What agents do to measure a link, with channels that are in this process."""

from __future__ import annotations

import pytest

from adjoin.errors import InputError, TransportError
from adjoin.runtime import protocol as p
from adjoin.runtime.policies.topology import Topology, Worker
from adjoin.runtime.probe import MOST_BYTES, pairs, probe, sample
from adjoin.transport import codec
from adjoin.transport.channel import LocalChannel
from adjoin.transport.codec import Encoded

PEER = "tcp://127.0.0.1:1"


def answer(id: str) -> Encoded:
    if (value := sample(id)) is None:
        raise TransportError("gone")
    return value


class Near(LocalChannel):
    name = "near"


def request(sizes: tuple[int, ...] = (8, 100_000), repeats: int = 3) -> p.Probe:
    return p.Probe(peer=PEER, sizes=sizes, repeats=repeats)


async def test_each_channel_that_reaches_the_peer_is_timed() -> None:
    found = await probe([LocalChannel("tcp://other", answer), Near(PEER, answer)], request())
    assert found.keys() == {"near"}
    assert found["near"].keys() == {8, 100_000}
    assert all(0 < seconds < 5 for seconds in found["near"].values())


async def test_bytes_that_are_missing_are_an_error() -> None:
    short = LocalChannel(PEER, lambda id: answer("probe:7:0"))
    with pytest.raises(TransportError, match="7 of 8 bytes"):
        await probe([short], request(sizes=(8,)))


async def test_a_peer_that_is_gone_is_an_error() -> None:
    def gone(id: str) -> Encoded:
        raise TransportError("gone")

    with pytest.raises(TransportError, match="gone"):
        await probe([LocalChannel(PEER, gone)], request())


@pytest.mark.parametrize(
    "bad",
    [request(sizes=()), request(sizes=(0,)), request(sizes=(MOST_BYTES + 1,)), request(repeats=0)],
)
async def test_bounds(bad: p.Probe) -> None:
    with pytest.raises(InputError):
        await probe([LocalChannel(PEER, answer)], bad)


def test_ids_of_runs_are_no_samples() -> None:
    for id in ("", "probe", "probe:", "probe:8", "probe:-8:1", "xprobe:8:1", "probe:9999999999:1"):
        assert sample(id) is None, id
    found = sample("probe:1000:3")
    assert found is not None
    assert codec.decode(found).size == 1000
    most = sample("probe:999999999:1")
    assert most is not None
    assert most.nbytes <= MOST_BYTES + 1000


def test_pairs_of_a_large_cluster_are_bounded() -> None:
    workers = tuple(Worker(f"w{n:03}", f"tcp://{n}", "h") for n in range(100))
    assert [(one.name, other.name) for one, other in pairs(Topology(1, workers))][:2] == [
        ("w000", "w001"),
        ("w001", "w002"),
    ]
    assert len(pairs(Topology(1, workers))) == 16
    assert pairs(Topology(1, workers[:1])) == []
