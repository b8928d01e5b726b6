"""The usage logs of a machine as its host keeps them: swept, handed out, dropped, bounded.

Every replica has its own log, all in one directory below the home, which outlives hosts, clusters
and the machine's power. Whoever holds the lock of a meter owns that log; when nobody does, its
replica has gone, and what it was doing is recorded from the meter. All of this can be done twice,
or stop anywhere, and comes to the same: a record is known by its log and number.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from adjoin.runtime.usage_log import LOG_SUFFIX
from adjoin.runtime.usage_meter import SUFFIX, Slot, read_meter
from adjoin.runtime.usage_records import CallRecord, pack_all, read

#: Of one answer, in bytes.
FETCH_BYTES = 4_000_000


class Piece(msgspec.Struct, frozen=True):
    """Part of a log's file, from ``offset`` on.

    Attributes:
        file: its name; up to the first dot, the log's id.
        closed: nobody will write to it any more.
    """

    file: str
    offset: int
    data: bytes
    closed: bool

    @property
    def log(self) -> str:
        return self.file.partition(".")[0]


class Keeper:
    """Does this for one directory, one call at a time."""

    def __init__(self, directory: Path, most: int) -> None:
        self._directory = directory
        self._most = most
        self._lock = threading.Lock()
        self.sweep()

    def sweep(self) -> None:
        with self._lock:
            if found := sweep(self._directory):
                _say(f"{found} calls of replicas that died were recorded as interrupted")
            if removed := bound(self._directory, self._most):
                _say(f"{removed} bytes of usage that nobody fetched were dropped")

    def fetch(self, acknowledged: Mapping[str, int]) -> list[Piece]:
        """See :func:`fetch`; sweeps first, since hosts that were killed have left something."""
        self.sweep()
        with self._lock:
            return fetch(self._directory, acknowledged)


def directory_of(home: Path) -> Path:
    """Where the usage logs are."""
    return home / "usage"


def sweep(directory: Path) -> int:
    """Record what replicas that have gone were doing; returns how many requests that were."""
    found = 0
    for path in directory.glob(f"*{SUFFIX}"):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # somebody else sweeps
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                found += _record(directory, path)
        except BlockingIOError:  # it lives
            continue
        finally:
            os.close(fd)
    return found


def fetch(directory: Path, acknowledged: Mapping[str, int]) -> list[Piece]:
    """Parts of files from which no more than so many bytes have been acknowledged, oldest first.

    What is acknowledged of a file that is closed and has no more is removed.
    """
    pieces: list[Piece] = []
    room = FETCH_BYTES
    for path, closed in _files(directory):
        offset = acknowledged.get(path.name, 0)
        try:
            size = path.stat().st_size
            if offset >= size:
                if closed:
                    path.unlink()
                continue
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(room)
        except FileNotFoundError:  # another agent of this machine has removed it
            continue
        room -= len(data)
        pieces.append(Piece(path.name, offset, data, closed and offset + len(data) >= size))
        if room <= 0:
            break
    return pieces


def bound(directory: Path, most: int) -> int:
    """Remove the oldest closed files beyond so many bytes; returns how many bytes that were.

    Where nobody fetches them, this is what becomes of them.
    """
    files = [
        (path, closed, path.stat().st_size) for path, closed in _files(directory) if path.exists()
    ]
    total, removed = sum(size for _, _, size in files), 0
    for path, closed, size in files:
        if total - removed <= most:
            break
        if closed:
            path.unlink(missing_ok=True)
            removed += size
    return removed


def _files(directory: Path) -> Iterator[tuple[Path, bool]]:
    """All files of records, the oldest first, and whether they are closed: there is a later one of
    the same log, or its replica has gone and was swept."""
    known: dict[str, list[int]] = {}
    alive = {path.name.removesuffix(SUFFIX) for path in directory.glob(f"*{SUFFIX}")}
    for path in directory.glob(f"*{LOG_SUFFIX}"):
        log, number, _ = path.name.split(".")
        known.setdefault(log, []).append(int(number))
    found = [
        (directory / f"{log}.{number}{LOG_SUFFIX}", log not in alive or number < max(numbers))
        for log, numbers in known.items()
        for number in numbers
    ]
    yield from sorted(found, key=lambda each: _changed(each[0]))


def _changed(path: Path) -> int:
    """When, in nanoseconds; 0 for what is gone."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _record(directory: Path, meter: Path) -> int:
    """Append what the meter has and the log has not, and remove the meter."""
    log = meter.name.removesuffix(SUFFIX)
    files = sorted(directory.glob(f"{log}.*{LOG_SUFFIX}"), key=_changed)
    slots = list(read_meter(meter.read_bytes()))
    recorded: set[int] = set()
    for path in files if slots else ():
        recorded |= {record.seq for record in read(path.read_bytes()).records}
    missing = [_of(slot) for slot in slots if slot.seq not in recorded]
    if missing:
        path = files[-1] if files else directory / f"{log}.0{LOG_SUFFIX}"
        with path.open("ab") as file:
            file.write(pack_all(missing))
            file.flush()
            os.fdatasync(file.fileno())
    meter.unlink()
    return len(missing)


def _of(slot: Slot) -> CallRecord:
    outcome = slot.outcome
    return CallRecord(slot.seq, slot.account, slot.usage, outcome, time.time())  # type: ignore[arg-type]


def _say(what: str) -> None:
    print(what, flush=True)  # noqa: T201 - this is the host's log
