"""The usage log of a replica: a record of each call, appended before its result is sent.

A record is in the kernel's hands when :meth:`UsageLog.settle` returns, so that it survives the end
of any process; a thread brings it to the disk a moment later, all that came meanwhile at once. What
is in the engine is in the :class:`~adjoin.runtime.usage_meter.Meter`, from which whoever finds the
log without its process makes the records that are missing (:mod:`adjoin.runtime.usage_sweep`).
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from adjoin.errors import Overloaded
from adjoin.functions.engines.base import Account, Delta, Failed, Finished, Output, Request
from adjoin.runtime.usage_meter import SUFFIX, Meter
from adjoin.runtime.usage_records import CallRecord, Outcome, pack_all
from adjoin.types import Usage

LOG_SUFFIX = ".log"
#: A file is closed at this size, and can go once it has been fetched.
_FILE_BYTES = 4_000_000
#: Between a record and the disk, in seconds.
_SYNC_EVERY = 0.1


class UsageLog:
    """What the requests of one replica consume. All but the syncing is for one thread.

    Args:
        directory: of all usage logs of this machine.
        slots: the most requests in the engine at once.
    """

    def __init__(self, directory: Path, slots: int) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.id = secrets.token_hex(8)
        self._directory = directory
        # Some may have ended without a record, while the disk is full.
        self._meter = Meter(directory / (self.id + SUFFIX), 2 * slots + 2)
        self._numbers = 1
        self._live: dict[str, tuple[int, CallRecord]] = {}
        self._unwritten: list[tuple[int, CallRecord]] = []
        self._file = 0
        self._fd = self._open()
        self._size = 0
        self._dirty = threading.Event()
        threading.Thread(target=self._sync, name="usage-sync", daemon=True).start()

    def loaded(self, model: str, seconds: float) -> None:
        """The replica took so long to load: whoever waits for it shares that."""
        usage = Usage(cold_start_seconds=seconds)
        self._append([CallRecord(0, Account(model=model), usage, "load", time.time())])

    def begin(self, request: Request) -> None:
        """A request is about to enter the engine.

        Raises:
            Overloaded: the usage of earlier ones cannot be written.
            StateError: its names are too long.
        """
        if self._unwritten:
            self._write()
        if self._unwritten or self._meter.full:
            raise Overloaded(
                "what it would consume cannot be recorded", hint="the disk may be full: free some"
            )
        account = request.account
        slot = self._meter.begin(self._numbers, account)
        record = CallRecord(self._numbers, account, Usage(), "interrupted", 0.0)
        self._live[request.id] = slot, record
        self._numbers += 1

    def withdraw(self, id: str) -> None:
        """The engine did not take it after all."""
        slot, _ = self._live.pop(id)
        self._meter.free(slot)

    def settle(self, seconds: float, outputs: Sequence[Output]) -> None:
        """Count what a step made in so many seconds; of what has ended, write the records."""
        if seconds and self._live:
            self._meter.tick(seconds / len(self._live))
        ended = False
        for output in outputs:
            if (found := self._live.get(output.id)) is None:
                continue
            if output.usage.prompt or output.usage.embedded:  # else no more is known than before
                self._meter.count(found[0], output.usage)
            if not isinstance(output, Delta):
                self._end(output)
                ended = True
        if ended:
            self._write()

    def close(self) -> None:
        """For an end without requests; a replica that is killed is swept."""
        self._meter.close()
        os.close(self._fd)

    def _end(self, output: Output) -> None:
        slot, record = self._live.pop(output.id)
        outcome = _outcome(output)
        usage = self._meter.end(slot, outcome)
        self._unwritten.append(
            (slot, CallRecord(record.seq, record.account, usage, outcome, time.time()))
        )

    def _write(self) -> None:
        """Write what has ended; what cannot be written stays in the meter and is tried again."""
        if self._append(record for _, record in self._unwritten):
            for slot, _ in self._unwritten:
                self._meter.free(slot)
            self._unwritten.clear()

    def _append(self, records: Iterable[CallRecord]) -> bool:
        data = pack_all(records)
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            self._complain(error.strerror)
            return False
        if written < len(data):
            os.ftruncate(self._fd, self._size)
            self._complain("there is no room")
            return False
        self._size += written
        self._dirty.set()
        if self._size >= _FILE_BYTES:
            self._next()
        return True

    def _next(self) -> None:
        old, self._file, self._size = self._fd, self._file + 1, 0
        self._fd = self._open()
        os.fdatasync(old)
        os.close(old)

    def _open(self) -> int:
        path = self._directory / f"{self.id}.{self._file}{LOG_SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(path, flags, 0o600)

    def _sync(self) -> None:
        while True:
            self._dirty.wait()
            threading.Event().wait(_SYNC_EVERY)
            self._dirty.clear()
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                if error.errno != errno.EBADF:  # else it was full, and synced before it was closed
                    self._complain(error.strerror)

    @staticmethod
    def _complain(why: str | None) -> None:
        print(f"usage cannot be written: {why}", flush=True)  # noqa: T201 - this is the log


def _outcome(output: Output) -> Outcome:
    if isinstance(output, Failed):
        return "failed"
    if isinstance(output, Finished):
        reasons = {each.finish_reason for each in output.generations}
        return "ended" if reasons and reasons != {"abort"} else "aborted"
    return "ended"
