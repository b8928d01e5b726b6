"""One array of 16 MB from one process to another of this machine, until every byte is read.

The copy that publishing makes is included, making the array is not. Beside the channels: a pickle
through a pipe, and what reading alone costs. Medians; both ends are processes, as workers are.

    python -m benchmarks.hop [--repeats 50] [--megabytes 16]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from distributed.core import ConnectionPool, Server, Status

from adjoin.errors import TransportError
from adjoin.runtime import protocol as p
from adjoin.runtime.conversation import decode
from adjoin.runtime.pull import RemoteChannel, answer_pull
from adjoin.transport import codec
from adjoin.transport.channel import Published, ValueChannel
from adjoin.transport.lending import Lender, socket_path
from adjoin.transport.memory import allocating, empty
from adjoin.transport.remote import Channel
from adjoin.transport.shm import SharedMemoryChannel
from benchmarks.report import arguments, report

_BUDGET = 2**29
_LOCAL = "owner"


def produce(commands: Connection, directory: str, megabytes: int) -> None:
    """The other process: makes an array when told, and says under which id it is."""
    with suppress(EOFError):
        asyncio.run(_produce(commands, Path(directory), megabytes * 2**17))


async def _produce(commands: Connection, directory: Path, words: int) -> None:
    published = Published()

    def find(id: str) -> codec.Encoded:
        if (value := published.find(id)) is None:
            raise TransportError("the value is gone")
        return value

    async def on_call(comm: Any, messages: Any, **_: Any) -> Any:
        await answer_pull(Channel(comm), decode(messages[0], p.Call), find)
        return Status.dont_reply

    server = Server({"adjoin_call": on_call})
    await server.listen("tcp://127.0.0.1")
    lender = Lender(_BUDGET, find, ThreadPoolExecutor(1))
    lender.start(socket_path(directory, _LOCAL))
    commands.send(server.address)
    array: Any = None
    while (command := await asyncio.to_thread(commands.recv)) is not None:
        how, seed = command
        published.withdraw_all()
        await asyncio.sleep(0)
        if how == "preallocated":
            array = None  # its slab is free for the next
            with allocating(lender.pool):
                array = empty(words, np.int64)
        else:
            array = np.empty(words, np.int64)
        array[:] = seed
        if how == "pickle":
            commands.send("ready")
            await asyncio.to_thread(commands.recv)
            commands.send(array)
        else:
            commands.send(published.publish(codec.encode(array)))


async def hops(megabytes: int = 16, repeats: int = 50) -> dict[str, float]:
    """Median milliseconds of each way."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with TemporaryDirectory() as directory:
        other = context.Process(target=produce, args=(theirs, directory, megabytes), daemon=True)
        other.start()
        address = ours.recv()
        shm, pool = SharedMemoryChannel(Path(directory)), await ConnectionPool()
        remote = RemoteChannel(pool)
        figures = {}
        for name, how, channel, owner in (
            ("hop_ms", "plain", shm, _LOCAL),
            ("hop_preallocated_ms", "preallocated", shm, _LOCAL),
            ("dask_comm_ms", "plain", remote, address),
        ):
            figures[name] = await _median(repeats, how, ours, _fetching(channel, owner))
        figures["pickle_pipe_ms"] = await _median(repeats, "pickle", ours, _receive_pickle)
        local = np.ones(megabytes * 2**17, np.int64)
        figures["reading_alone_ms"] = statistics.median(
            _timed(lambda: int(local.sum())) for _ in range(repeats)
        )
        await shm.close()
        await pool.close()
        ours.send(None)
        other.join()
    return figures


def _fetching(channel: ValueChannel, owner: str) -> Callable[[Connection, Any], Awaitable[Any]]:
    async def fetch(_: Connection, id: str) -> Any:
        return codec.decode(await channel.fetch(id, owner))

    return fetch


async def _receive_pickle(commands: Connection, _: Any) -> Any:
    commands.send("now")
    return commands.recv()


async def _median(
    repeats: int,
    how: str,
    commands: Connection,
    receive: Callable[[Connection, Any], Awaitable[Any]],
) -> float:
    times = []
    for seed in range(repeats + 5):
        commands.send((how, seed))
        id = commands.recv()
        began = time.perf_counter()
        array = await receive(commands, id)
        total = int(array.sum())
        times.append((time.perf_counter() - began) * 1e3)
        if total != seed * array.size:
            raise ValueError(f"{how}: the sum is {total}, not {seed * array.size}")
        del array
        await asyncio.sleep(0.001)  # what is given back is underway
    return statistics.median(times[5:])


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--megabytes", type=int, default=16, help="of 2**20 bytes")
    options = parser.parse_args()
    repeats = 10 if options.quick else options.repeats
    figures = asyncio.run(hops(options.megabytes, repeats))
    report("hop", {**figures, "load": round(os.getloadavg()[0], 1)}, file=options.json)


if __name__ == "__main__":
    main()
