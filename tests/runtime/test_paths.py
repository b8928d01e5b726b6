"""What killed agents leave on a machine is swept, and nothing else."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from adjoin.runtime.paths import agents_directory, runtime_directory, sweep_all_agents
from adjoin.transport.channel import Unreachable
from adjoin.transport.frames import connect, listen
from adjoin.transport.lending import Lender, socket_path
from adjoin.transport.shm import SharedMemoryChannel


def left_behind(path: Path) -> Path:
    """A socket as a killed process leaves it: with a name, and nobody listening."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listen(path, socket.SOCK_SEQPACKET).close()
    return path


def no_value(id: str) -> Any:
    raise AssertionError(id)


async def test_sockets_of_killed_agents_are_swept_in_every_cluster_and_live_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    mine, other = (agents_directory(runtime_directory(name)) for name in ("mine", "other"))
    dead = [left_behind(socket_path(mine, "tcp://a:1")), left_behind(socket_path(other, "b"))]
    half = left_behind(mine / "0123456789abcdef.new")
    alive = socket_path(other, "tcp://c:3")
    lender = Lender(0, no_value, ThreadPoolExecutor(1))
    lender.start(alive)
    try:
        sweep_all_agents()
        assert not any(path.exists() for path in [*dead, half])
        channel = SharedMemoryChannel(other)
        with pytest.raises(Unreachable):
            await channel.fetch("x", "b")
        channel._link("tcp://c:3")  # raises where nobody listens
        await channel.close()
    finally:
        await lender.close()
    assert [path.name for path in other.iterdir()] == ["agents.lock"]


def test_nothing_is_to_be_swept_where_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    sweep_all_agents()
    assert not list(tmp_path.iterdir())


def test_a_peer_that_accepts_nothing_now_is_not_taken_for_dead_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = socket_path(agents_directory(runtime_directory("mine")), "tcp://a:1")
    path.parent.mkdir(parents=True)
    waiting = []
    with listen(path, socket.SOCK_SEQPACKET):
        with suppress(BlockingIOError):
            while True:
                waiting.append(connect(path, socket.SOCK_SEQPACKET, wait=False))
        sweep_all_agents()
        assert path.exists()
        for sock in waiting:
            sock.close()
    sweep_all_agents()
    assert not path.exists()
