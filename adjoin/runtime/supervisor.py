"""Starts the processes of an embedded cluster, and starts again what dies.

A worker's process has a nanny above it, which starts that one again; here it is the nannies and the
scheduler. The scheduler comes back on its old port, where the workers rejoin it, so that nothing
that runs on them is disturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adjoin.errors import AdjoinError, TransportError
from adjoin.runtime.lease import HostLease
from adjoin.runtime.paths import runtime_directory
from adjoin.runtime.policies.restart import PROCESSES, Failures
from adjoin.runtime.process import parent
from adjoin.settings import Settings

_log = logging.getLogger(__name__)
_START_S = 60.0
_STOP_S = 10.0
SCHEDULER = "scheduler"


class Member:
    """A process of an embedded cluster, which ends when we do (see :mod:`.member`)."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.address = address
        self.pid = process.pid
        self.began = time.monotonic()
        self._process = process

    @classmethod
    async def start(cls, log: Path, job: dict[str, Any]) -> Member:
        """Start a process on its job and wait until it is ready.

        Raises:
            TransportError: it did not start; the message names its log.
        """
        # Workers import what the user's program can import.
        search = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "adjoin.runtime.member", log.stem),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                env=os.environ | {"PYTHONPATH": search},
                start_new_session=True,
            )
        try:
            if process.stdin is None or process.stdout is None:
                raise ValueError("no pipes")
            process.stdin.write(json.dumps(job).encode() + b"\n")
            async with asyncio.timeout(_START_S):
                line = await process.stdout.readline()
            return cls(process, str(json.loads(line)["address"]))
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if not isinstance(error, TimeoutError | ValueError | ConnectionError):
                raise
            raise TransportError(
                f"the process {log.stem!r} did not start", hint=f"its log says why: {log}"
            ) from None

    async def ended(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        return await self._process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> None:
        """Ask it to end, and make sure that it does."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()


class Supervisor:
    """The processes of an embedded cluster, by name."""

    def __init__(self, settings: Settings, id: str) -> None:
        self.id = id
        #: The scheduler's address.
        self.address = ""
        #: Why something that should run does not; empty when all does.
        self.trouble: dict[str, str] = {}
        self.workers = tuple(f"worker-{number}" for number in range(settings.workers))
        self._settings = settings
        self.host = HostLease(runtime_directory(id))
        self._logs = runtime_directory(id) / "logs"
        self._members: dict[str, Member] = {}
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all of them.

        Raises:
            TransportError: a process did not start.
        """
        self._logs.mkdir(parents=True, mode=0o700)
        try:
            await self._start(SCHEDULER)
            started = await asyncio.gather(
                *(self._start(name) for name in self.workers), return_exceptions=True
            )
            for failed in started:
                if isinstance(failed, BaseException):
                    raise failed
        except BaseException:
            await self.close()
            raise
        names = (SCHEDULER, *self.workers)
        self._keepers = [asyncio.ensure_future(self._keep(name)) for name in names]

    async def close(self) -> None:
        """End all of them. Workers first: they leave properly while the scheduler still answers."""
        self.host.close()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        scheduler = self._members.pop(SCHEDULER, None)
        await asyncio.gather(*(member.stop() for member in self._members.values()))
        if scheduler is not None:
            await scheduler.stop()
        shutil.rmtree(self._logs.parent, ignore_errors=True)

    @property
    def pids(self) -> dict[str, int]:
        """The processes that were started here; a worker's own is a child of its."""
        return {name: member.pid for name, member in self._members.items()}

    def kill(self, name: str) -> None:
        """Have one started again."""
        self._members[name].kill()

    def kill_worker(self, pid: int) -> None:
        """Kill the process of a worker, which its nanny starts again."""
        if parent(pid) in self.pids.values():  # else it is another one's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _start(self, name: str) -> None:
        """Start one, the scheduler where it was before."""
        job: dict[str, Any] = {"role": "scheduler", "protocol": self._settings.protocol}
        if name == SCHEDULER:
            job["port"] = urlsplit(self.address).port or 0
        else:
            job = {"role": "worker", "scheduler": self.address, "name": name, "cluster": self.id}
            job["settings"] = self._settings.model_dump_json()
        member = self._members[name] = await Member.start(self._logs / f"{name}.log", job)
        self.trouble.pop(name, None)
        if name == SCHEDULER and member.address != self.address:
            self.address = member.address
            for worker in self.workers:  # those who know the old one cannot find it
                if worker in self._members:
                    self._members[worker].kill()

    async def _keep(self, name: str) -> None:
        failures = Failures()
        while True:
            member = self._members[name]
            code = await member.ended()
            lived = time.monotonic() - member.began
            died = TransportError(
                f"the process {name!r} ended ({_how(code)})", where=str(self._logs)
            )
            failures = failures.after_life(lived, died, time.monotonic())
            while self._members[name] is member:
                self.trouble[name] = str(failures.error)
                pause = failures.pause(time.monotonic(), PROCESSES)
                _log.warning("%s; it is started again in %g s", failures.error, pause)
                await asyncio.sleep(pause)
                try:
                    await self._start(name)
                except AdjoinError as error:
                    failures = failures.after(error, time.monotonic())
                    if name == SCHEDULER:  # somebody else may have its port by now
                        self.address = self.address.rpartition(":")[0] + ":0"


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
