"""Shared memory between processes: what each side's misbehaviour or death leaves behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adjoin.errors import TransportError
from adjoin.transport import codec
from adjoin.transport.channel import Published, Unreachable
from adjoin.transport.codec import Encoded
from adjoin.transport.frames import connect
from adjoin.transport.lending import Fetch, Lender, Lent, Return, ToConsumer, socket_path
from adjoin.transport.memory import allocating, empty
from adjoin.transport.packets import Packets, close_all
from adjoin.transport.shm import SharedMemoryChannel

OWNER = "tcp://127.0.0.1:40000"
MB = 2**20


class Owner:
    """A lender with its table of values."""

    def __init__(self, directory: Path, budget: int) -> None:
        self.published = Published()
        self.threads = ThreadPoolExecutor(1)
        self.lender = Lender(budget, self.find, self.threads)
        self.lender.start(socket_path(directory, OWNER))

    def find(self, id: str) -> Encoded:
        if (value := self.published.find(id)) is None:
            raise TransportError("the value is gone")
        return value

    def publish(self, value: Any) -> str:
        return self.published.publish(codec.encode(value))

    async def all_free(self) -> None:
        """Wait until no slab is held, while the loop does what is to be done."""
        async with asyncio.timeout(20):
            while True:
                self.lender.pool.settle()
                if not self.lender.pool.taken:
                    return
                await asyncio.sleep(0)


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[Owner]:
    owner = Owner(tmp_path, 8 * MB)
    yield owner
    await owner.lender.close()
    owner.threads.shutdown()


@pytest.fixture
async def channel(tmp_path: Path, owner: Owner) -> AsyncIterator[SharedMemoryChannel]:
    channel = SharedMemoryChannel(tmp_path)
    yield channel
    await channel.close()


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


async def test_over_budget_another_channel_is_asked_for(
    owner: Owner, channel: SharedMemoryChannel
) -> None:
    kept = codec.decode(await channel.fetch(owner.publish(np.ones(5 * MB, np.uint8)), OWNER))
    id = owner.publish(np.ones(5 * MB, np.uint8))
    with pytest.raises(Unreachable):
        await channel.fetch(id, OWNER)
    assert owner.lender.counts.declined == 1
    assert kept.all()
    del kept
    owner.published.withdraw_all()
    await owner.all_free()
    assert codec.decode(await channel.fetch(owner.publish(np.ones(5 * MB, np.uint8)), OWNER)).all()


async def test_no_lender_is_another_channels_business(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        await SharedMemoryChannel(tmp_path).fetch("x", OWNER)


@pytest.mark.parametrize("nbytes", [100_000, 4 * MB])
async def test_a_slab_is_free_when_value_and_views_are_gone(
    owner: Owner, channel: SharedMemoryChannel, nbytes: int
) -> None:
    id = owner.publish(np.ones(nbytes, np.uint8))
    view = codec.decode(await channel.fetch(id, OWNER))[5:10].reshape(5, 1).T
    owner.published.withdraw_all()
    (slab,) = owner.lender.pool.taken.values()
    async with asyncio.timeout(20):
        while slab.holders != 1:  # the view
            owner.lender.pool.settle()
            await asyncio.sleep(0)
    assert owner.lender.pool.taken
    del view
    await owner.all_free()
    assert list(owner.lender.pool.free) == [slab.id]


async def test_what_is_allocated_shared_is_not_copied(
    owner: Owner, channel: SharedMemoryChannel
) -> None:
    with allocating(owner.lender.pool):
        array = await asyncio.to_thread(empty, (2, MB), np.float32)
    array[:] = 3
    found = codec.decode(await channel.fetch(owner.publish({"x": [array[1:]]}), OWNER))["x"][0]
    assert len(owner.lender.pool.taken) == 1
    assert found.shape == (1, MB)
    assert (found == 3).all()
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1
    owner.published.withdraw_all()
    del array
    assert (found == 3).all()
    del found
    await owner.all_free()


async def test_outside_of_a_stage_an_array_is_an_ordinary_one() -> None:
    assert empty(3).shape == (3,)
    assert empty((2, MB), "f4").flags.owndata


async def test_small_and_impossible_arrays_are_ordinary_ones(owner: Owner) -> None:
    with allocating(owner.lender.pool):
        assert empty((0, MB)).shape == (0, MB)
        assert empty(10, object).dtype == object
        assert empty(100 * MB, np.uint8).nbytes == 100 * MB
        with pytest.raises(ValueError, match="negative"):
            empty((-1, MB))
    assert not owner.lender.pool.taken


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names suffice


async def test_thousands_of_hops_leave_nothing(owner: Owner, channel: SharedMemoryChannel) -> None:
    async def hop(n: int) -> None:
        value = np.full(70_000 + 1000 * (n % 50), n % 251, np.uint8)
        found = codec.decode(await channel.fetch(owner.publish(value), OWNER))
        assert found[0] == found[-1] == n % 251
        owner.published.withdraw_all()

    for n in range(200):
        await hop(n)
    await owner.all_free()
    before, slabs = descriptors(), len(owner.lender.pool.free)
    for n in range(3000):
        await hop(n)
    await owner.all_free()
    assert len(owner.lender.pool.free) == slabs
    assert descriptors() == before
    assert not owner.lender._placed


async def test_slabs_of_many_sizes_replace_each_other(
    owner: Owner, channel: SharedMemoryChannel
) -> None:
    for megabytes in (1, 2, 3, 4, 5, 6, 7, 1, 7):
        value = np.full(megabytes * MB, megabytes, np.uint8)
        assert (codec.decode(await channel.fetch(owner.publish(value), OWNER)) == megabytes).all()
        owner.published.withdraw_all()
        await owner.all_free()
    assert owner.lender.pool.nbytes <= 8 * MB
    (link,) = channel._links.values()
    await channel.fetch(owner.publish("x"), OWNER)  # what was sent before has been read
    assert set(link._mapped) <= set(owner.lender.pool.free)


async def test_a_fetch_that_nobody_waits_for_any_more_is_given_back(
    owner: Owner, channel: SharedMemoryChannel
) -> None:
    id = owner.publish(np.ones(MB, np.uint8))
    fetch = asyncio.ensure_future(channel.fetch(id, OWNER))
    await asyncio.sleep(0)
    fetch.cancel()
    owner.published.withdraw_all()
    await asyncio.gather(fetch, return_exceptions=True)
    await owner.all_free()


@pytest.mark.parametrize("bad", [b"nonsense", b"\xc1", Return(1), Return(-5), {"type": "Fetch"}])
async def test_a_consumer_that_lies_is_cut_off(owner: Owner, tmp_path: Path, bad: Any) -> None:
    sock = connect(socket_path(tmp_path, OWNER), socket.SOCK_SEQPACKET)
    packets: Packets[ToConsumer] = Packets(sock, ToConsumer)
    packets.send(bad)
    async with asyncio.timeout(10):
        assert await packets.receive() is None
    packets.close()


async def test_returning_more_than_was_lent_is_cut_off(owner: Owner, tmp_path: Path) -> None:
    id = owner.publish(np.ones(MB, np.uint8))
    packets: Packets[ToConsumer] = Packets(
        connect(socket_path(tmp_path, OWNER), socket.SOCK_SEQPACKET), ToConsumer
    )
    packets.send(Fetch(1, id))
    received = await packets.receive()
    assert received is not None
    message, fds = received
    assert isinstance(message, Lent)
    close_all(fds)
    for _ in range(2):
        packets.send(Return(message.slabs[0]))
    assert await packets.receive() is None
    packets.close()
    (slab,) = owner.lender.pool.taken.values()
    assert slab.holders == 1  # the value that is still published


_SIDE = """
import asyncio, sys, numpy as np
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from adjoin.transport import codec
from adjoin.transport.lending import Lender, socket_path
from adjoin.transport.shm import SharedMemoryChannel
role, directory, owner, id = sys.argv[1:]
async def main():
    if role == "consumer":
        channel = SharedMemoryChannel(Path(directory))
        found = codec.decode(await channel.fetch(id, owner))
        print(int(found.sum()), flush=True)
    else:
        value = codec.encode(np.full(3_000_000, 1, np.uint8))
        lender = Lender(2**26, lambda id: value, ThreadPoolExecutor(1))
        lender.start(socket_path(Path(directory), owner))
        print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""

Start = Callable[..., subprocess.Popen[bytes]]


async def first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return await asyncio.to_thread(process.stdout.readline)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _SIDE, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


async def test_a_consumer_that_is_killed_holds_nothing(owner: Owner, tmp_path: Path) -> None:
    id = owner.publish(np.ones(4 * MB, np.uint8))
    with start("consumer", str(tmp_path), OWNER, id) as consumer:
        assert await first_line(consumer) == b"%d\n" % (4 * MB)
        owner.published.withdraw_all()
        assert owner.lender.pool.taken
        consumer.send_signal(signal.SIGKILL)
    await owner.all_free()


async def test_a_value_outlives_the_process_that_made_it(tmp_path: Path) -> None:
    channel = SharedMemoryChannel(tmp_path)
    with start("owner", str(tmp_path), OWNER, "") as other:
        assert await first_line(other) == b"ready\n"
        found = codec.decode(await channel.fetch("any", OWNER))
        other.send_signal(signal.SIGSTOP)  # it cannot answer, but is not dead yet
        late = asyncio.ensure_future(channel.fetch("any", OWNER))
        await asyncio.sleep(0)
        other.send_signal(signal.SIGKILL)
        async with asyncio.timeout(5):
            with pytest.raises(TransportError, match="gone"):
                await late
    assert found.sum() == 3_000_000
    with pytest.raises(Unreachable):
        await channel.fetch("any", OWNER)
    del found
    gc.collect()
    await channel.close()
