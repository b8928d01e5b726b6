"""Who is there and lives, with a scheduler and agents that are channels in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from adjoin.errors import TransportError
from adjoin.runtime import protocol as p
from adjoin.runtime.membership import Membership
from adjoin.settings import Settings


class Agent:
    """Says what it is told to say; its connection ends with :meth:`cut`."""

    def __init__(self, name: str) -> None:
        self.about = p.About(name=name, host="elsewhere", pid=1, threads=1, collections={})
        self._said: asyncio.Queue[p.Message | None] = asyncio.Queue()
        self._said.put_nowait(self.about)

    def say(self, message: p.Message) -> None:
        self._said.put_nowait(message)

    def cut(self) -> None:
        self._said.put_nowait(None)

    async def receive(self) -> tuple[list[bytes], list[Any]]:
        message = await self._said.get()
        if message is None:
            raise TransportError("gone")
        return [p.pack(message)], []

    def abort(self) -> None:
        pass


class World:
    def __init__(self, **settings: Any) -> None:
        self.agents = {"tcp://a": Agent("a"), "tcp://b": Agent("b")}
        self.scheduler = True
        self.cuts: list[str] = []
        self.members = Membership(
            self._addresses, self._watch, self.cuts.append, Settings(**settings)
        )

    async def _addresses(self) -> list[str]:
        if not self.scheduler:
            raise OSError("nobody there")
        return list(self.agents)

    async def _watch(self, address: str, message: p.Message) -> Any:
        assert isinstance(message, p.Watch) and message.beat_s
        return self.agents[address]

    async def until(self, **suspect: bool) -> None:
        """Wait until these workers are there, suspect or not, and no others."""
        async with asyncio.timeout(10):
            await self.members.until(
                lambda topology: {w.name: w.suspect for w in topology.workers} == suspect
            )


@asynccontextmanager
async def world(**settings: Any) -> AsyncIterator[World]:
    made = World(**settings)
    made.members.begin()
    try:
        await made.until(a=False, b=False)
        yield made
    finally:
        await made.members.close()


async def test_a_closed_connection_is_a_death_and_silence_a_suspicion() -> None:
    async with world(heartbeat_s=0.05, silence_s=60) as here:
        beats = asyncio.ensure_future(_beat(here.agents["tcp://a"]))
        await here.until(a=False, b=True)
        here.agents["tcp://b"].say(p.Alive())
        await here.until(a=False, b=False)
        gone = here.agents.pop("tcp://b")
        gone.cut()
        await here.until(a=False)
        assert "tcp://b" in here.cuts
        beats.cancel()


async def test_a_worker_that_is_silent_for_too_long_is_cut_off() -> None:
    async with world(heartbeat_s=0.05, silence_s=0.5) as here:
        beats = asyncio.ensure_future(_beat(here.agents["tcp://a"]))
        del here.agents["tcp://b"]  # so that it does not come back
        await here.until(a=False)
        assert here.cuts == ["tcp://b"]
        beats.cancel()


async def test_a_broken_conversation_is_doubted_until_the_next_look() -> None:
    async with world(heartbeat_s=0.5, silence_s=60) as here:
        here.members.doubt("a")
        assert [w.suspect for w in here.members.topology.workers] == [True, False]
        await here.until(a=False, b=False)


async def test_without_a_scheduler_the_workers_that_are_known_go_on() -> None:
    async with world(heartbeat_s=60, silence_s=60) as here:
        here.scheduler = False
        here.agents["tcp://a"].say(_with_model(here.agents["tcp://a"].about))
        async with asyncio.timeout(5):
            await here.members.until(lambda topology: "m" in topology.loaded["elsewhere"])
        assert len(here.members.topology.workers) == 2


def _with_model(about: p.About) -> p.About:
    return p.About(
        name=about.name, host=about.host, pid=1, threads=1, collections={}, models=("m",)
    )


async def _beat(agent: Agent) -> None:
    while True:
        agent.say(p.Alive())
        await asyncio.sleep(0.02)
