"""Which workers there are, and whether they live.

Dask's scheduler says who is there; each agent then tells about itself, on a connection that ends
when its worker does, and on which it gives signs of life. Between two looks at the members nothing
needs the scheduler: while it is gone, the workers that are known go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable

import msgspec

from adjoin.errors import TransportError
from adjoin.runtime import process
from adjoin.runtime import protocol as p
from adjoin.runtime.conversation import decode
from adjoin.runtime.policies.liveness import Deadlines, Verdict, is_missed
from adjoin.runtime.policies.topology import Device, Topology, Worker
from adjoin.runtime.pulse import Pulse, beats
from adjoin.runtime.supervisor import SCHEDULER, Supervisor
from adjoin.settings import Settings
from adjoin.transport.remote import Channel

_log = logging.getLogger(__name__)
_POLL_S = 0.5
#: While a worker that was started here is missing.
_POLL_SOON_S = 0.1


class Membership:
    """``topology`` is replaced whenever it changes.

    Args:
        members: asks the scheduler for the addresses of its workers; raises OSError.
        watch: starts to watch the agent at an address; raises TransportError.
        cut: ends every connection to an address.
        supervisor: of the processes, when they were started here.
    """

    def __init__(
        self,
        members: Callable[[], Awaitable[list[str]]],
        watch: Callable[[str, p.Message], Awaitable[Channel]],
        cut: Callable[[str], None],
        settings: Settings,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.topology = Topology(epoch=0, workers=())
        self._members = members
        self._watch = watch
        self._cut = cut
        self._supervisor = supervisor
        self._settings = settings
        self._deadlines = Deadlines(beat_s=settings.heartbeat_s, silence_s=settings.silence_s)
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._pulses: dict[str, Pulse] = {}
        self._scheduler = Pulse(time.monotonic())
        self._missing: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self._scheduler.heard = time.monotonic()
        self._tasks = [asyncio.ensure_future(self._follow()), asyncio.ensure_future(self._check())]

    async def close(self) -> None:
        tasks = [*self._tasks, *self._watches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, enough: Callable[[Topology], bool]) -> Topology:
        """Wait until there are enough workers."""
        while not enough(self.topology):
            self._changed.clear()
            await self._changed.wait()
        return self.topology

    # -- who is there --

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._settings.silence_s):
                    addresses = await self._members()
                self._scheduler.heard = time.monotonic()
                for address in addresses:
                    if address not in self._watches:
                        self._watches[address] = asyncio.ensure_future(self._attend(address))
            await asyncio.sleep(_POLL_SOON_S if self._lacks() else _POLL_S)

    def _lacks(self) -> bool:
        wanted = self._supervisor.workers if self._supervisor else ()
        return len(self.topology.workers) < len(wanted)

    async def _attend(self, address: str) -> None:
        """Follow one agent until its connection ends, which is when its worker is gone.

        A worker that has no agent yet is tried again at the next look at the members.
        """
        pulse = self._pulses[address] = Pulse(time.monotonic())
        try:
            channel = await self._watch(address, p.Watch(beat_s=self._settings.heartbeat_s))
            try:
                while True:
                    messages, _ = await channel.receive()
                    pulse.heard = time.monotonic()
                    for message in messages:
                        told = decode(message, p.FromWatched)
                        if isinstance(told, p.About):
                            pulse.pid = told.pid if told.host == socket.gethostname() else 0
                            self._replace(address, told)
            finally:
                channel.abort()
        except TransportError:
            pass
        finally:
            del self._pulses[address], self._watches[address]
            self._replace(address, None)

    def _replace(self, address: str, about: p.About | None) -> None:
        others = [worker for worker in self.topology.workers if worker.address != address]
        if about is None:
            self._cut(address)
        else:
            others.append(worker_of(address, about))
        self._publish(others)

    def _publish(self, workers: list[Worker]) -> None:
        found = tuple(sorted(workers, key=lambda worker: worker.name))
        if found != self.topology.workers:
            self.topology = Topology(epoch=self.topology.epoch + 1, workers=found)
            self._changed.set()

    # -- who lives --

    async def _check(self) -> None:
        async for now, late in beats(self._deadlines.beat_s / 2):
            for pulse in (self._scheduler, *self._pulses.values()):
                pulse.forgive(late, now)
            for address, pulse in list(self._pulses.items()):
                self._examine(address, pulse, now)
            if self._supervisor is not None:
                self._supervisor.host.renew()
                self._examine_members(self._supervisor, now)

    def _examine(self, address: str, pulse: Pulse, now: float) -> None:
        verdict = pulse.judged(now, self._deadlines)
        if verdict is pulse.verdict:
            return
        pulse.verdict = verdict
        silent = now - pulse.heard
        if verdict is Verdict.DEAD:
            _log.warning("the worker at %s has been silent for %.1f s: lost", address, silent)
            self._watches[address].cancel()
            if self._supervisor is not None and pulse.pid:
                self._supervisor.kill_worker(pulse.pid)
            return
        self._mark(address, suspect=verdict is Verdict.SUSPECT)

    def doubt(self, name: str) -> None:
        """A connection to this worker broke. Before its own does, nothing new goes there; if it
        lives, that is over at the next look."""
        worker = self.topology.worker(name)
        if worker is not None and (pulse := self._pulses.get(worker.address)):
            pulse.verdict = Verdict.SUSPECT
            self._mark(worker.address, suspect=True)

    def _mark(self, address: str, *, suspect: bool) -> None:
        self._publish(
            [
                msgspec.structs.replace(worker, suspect=suspect)
                if worker.address == address
                else worker
                for worker in self.topology.workers
            ]
        )

    def _examine_members(self, supervisor: Supervisor, now: float) -> None:
        self._scheduler.pid = supervisor.pids.get(SCHEDULER, 0)
        if self._scheduler.judged(now, self._deadlines) is Verdict.DEAD:
            self._scheduler.heard = now
            supervisor.kill(SCHEDULER)
        there = {worker.name for worker in self.topology.workers}
        for name in supervisor.workers:
            since = self._missing.setdefault(name, now)
            if name in there:
                del self._missing[name]
            elif is_missed(now - since, process.look(supervisor.pids[name]), self._deadlines):
                del self._missing[name]
                supervisor.kill(name)


def worker_of(address: str, about: p.About) -> Worker:
    """A worker as the planner sees it."""
    return Worker(
        name=about.name,
        address=address,
        host=about.host,
        threads=about.threads,
        pid=about.pid,
        collections=frozenset(about.collections),
        memory=about.memory,
        resources=about.resources,
        devices=tuple(Device(each.id, each.memory) for each in about.devices),
        sizes=about.collections,
        models=frozenset(about.models),
    )
