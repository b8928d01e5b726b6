"""The contract over all channels. ``cuda_ipc`` needs an NVIDIA GPU: ``-m cuda``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from channel_suite import ChannelContract, Ends, finder
from distributed.core import ConnectionPool, Server, Status

from adjoin.runtime import protocol as p
from adjoin.runtime.conversation import decode
from adjoin.runtime.pull import RemoteChannel, answer_pull
from adjoin.transport.channel import LocalChannel, Published
from adjoin.transport.lending import Lender, socket_path
from adjoin.transport.remote import Channel
from adjoin.transport.shm import SharedMemoryChannel

OWNER = "tcp://127.0.0.1:40000"


class TestLocal(ChannelContract):
    @classmethod
    @asynccontextmanager
    async def make(cls) -> AsyncIterator[Ends]:
        published = Published()
        yield Ends(published, OWNER, LocalChannel(OWNER, finder(published)))


class TestSharedMemory(ChannelContract):
    @classmethod
    @asynccontextmanager
    async def make(cls) -> AsyncIterator[Ends]:
        published = Published()
        with TemporaryDirectory() as name, ThreadPoolExecutor(1) as threads:
            lender = Lender(2**28, finder(published), threads)
            lender.start(socket_path(Path(name), OWNER))
            channel = SharedMemoryChannel(Path(name))
            yield Ends(published, OWNER, channel)
            await channel.close()
            await lender.close()


class TestRemote(ChannelContract):
    @classmethod
    @asynccontextmanager
    async def make(cls) -> AsyncIterator[Ends]:
        published = Published()

        async def on_call(comm: Any, messages: Any, **_: Any) -> Any:
            await answer_pull(Channel(comm), decode(messages[0], p.Call), finder(published))
            return Status.dont_reply

        server = Server({"adjoin_call": on_call})
        await server.listen("tcp://127.0.0.1")
        pool = await ConnectionPool()
        yield Ends(published, server.address, RemoteChannel(pool))
        await pool.close()
        await server.close()


_PRODUCER = """
import asyncio, sys, torch
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from adjoin.transport import codec
from adjoin.transport.lending import Lender, socket_path
async def main():
    value = codec.encode({"a": torch.arange(1000, device="cuda"), "b": torch.ones(3)})
    lender = Lender(2**26, lambda id: value, ThreadPoolExecutor(1))
    lender.start(socket_path(Path(sys.argv[1]), sys.argv[2]))
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""


@pytest.mark.cuda
async def test_cuda_ipc(tmp_path: Path) -> None:
    """A process cannot open its own handles, so the owner is another one."""
    torch = pytest.importorskip("torch")
    from adjoin.transport import codec

    command = [sys.executable, "-c", _PRODUCER, str(tmp_path), OWNER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        channel = SharedMemoryChannel(tmp_path)
        found = codec.decode(await channel.fetch("any", OWNER))
        assert found["a"].is_cuda
        assert torch.equal(found["a"].cpu(), torch.arange(1000))
        assert torch.equal(found["b"], torch.ones(3))
        del found
        await channel.close()
        assert owner.stdin is not None
        owner.stdin.close()
