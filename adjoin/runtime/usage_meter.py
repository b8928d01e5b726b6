"""The meter of a replica: what the requests in its engine have consumed so far, in shared memory.

A mapped file: what is stored there outlives the process, however that ends, because the pages are
the kernel's. One slot a request, of eight-byte words so that no store is seen half done. Nothing
here waits for a disk; a meter is not meant to outlive the machine's power.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from adjoin.errors import StateError
from adjoin.functions.engines.base import Account
from adjoin.types import Usage

SUFFIX = ".meter"
_MAGIC = 0x61646A6D_00000001  # "adjm", and the layout's version
_SLOT = 1024
#: Of the first slot, which is the header: magic, number of slots, and the engine's clock.
_HEADER = struct.Struct("<QQd")
_CLOCK = struct.Struct("<d")
_CLOCK_AT = 16
#: Of a slot: request number plus one (0: free), four counters, clock at the beginning, state of the
#: request, length and CRC-32 of its account, which follows.
_FIXED = struct.Struct("<Q4QdQII")
_COUNTS = struct.Struct("<4Q")
_NUMBER = struct.Struct("<Q")
_COUNTS_AT = 8
_STATE_AT = 48
#: States of a request, and what they are called in a record.
OUTCOMES = ("interrupted", "ended", "aborted", "failed")


class Slot(msgspec.Struct, frozen=True):
    """A request as its meter has it; ``outcome`` is ``interrupted`` until it has ended."""

    seq: int
    account: Account
    usage: Usage
    outcome: str


class Meter:
    """The meter file of one living replica, locked for as long as its process lives."""

    def __init__(self, path: Path, slots: int) -> None:
        """Make the file.

        Raises:
            StateError: there is no room for it.
        """
        new = path.with_suffix(".new")
        size = (slots + 1) * _SLOT
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # All of it now: a store into a page that has no room on the disk would kill us.
            os.posix_fallocate(fd, 0, size)
            fcntl.flock(fd, fcntl.LOCK_EX)
            self._map = mmap.mmap(fd, size)
        except OSError as error:
            new.unlink()
            os.close(fd)
            raise StateError(
                f"usage cannot be counted: {error.strerror}", where=str(path), hint="free the disk"
            ) from error
        self._fd = fd
        self._path = path
        self._clock = 0.0
        self._free = list(range(slots, 0, -1))
        _HEADER.pack_into(self._map, 0, _MAGIC, slots, 0.0)
        new.rename(path)  # only now is it found: locked, and whole

    @property
    def full(self) -> bool:
        return not self._free

    def begin(self, seq: int, account: Account) -> int:
        """Take a slot for a request; returns it.

        Raises:
            StateError: the names in its account are too long.
        """
        text = _fitting(account)
        slot = self._free.pop()
        at = slot * _SLOT
        fixed = (*(0, 0, 0, 0), self._clock, 0, len(text), zlib.crc32(text))
        _FIXED.pack_into(self._map, at, 0, *fixed)
        self._map[at + _FIXED.size : at + _FIXED.size + len(text)] = text
        _NUMBER.pack_into(self._map, at, seq + 1)  # last: from here on it counts
        return slot

    def tick(self, seconds: float) -> None:
        """The engine's clock goes on by what each request in it is to bear."""
        self._clock += seconds
        _CLOCK.pack_into(self._map, _CLOCK_AT, self._clock)

    def count(self, slot: int, usage: Usage) -> None:
        """All that a request has consumed so far."""
        _COUNTS.pack_into(
            *(self._map, slot * _SLOT + _COUNTS_AT),
            *(usage.prompt, usage.cached, usage.generated, usage.embedded),
        )

    def end(self, slot: int, outcome: str) -> Usage:
        """A request has ended; returns what it consumed. The slot is kept until :meth:`free`."""
        at = slot * _SLOT
        _NUMBER.pack_into(self._map, at + _STATE_AT, OUTCOMES.index(outcome))
        _, *counts, began, _, _, _ = _FIXED.unpack_from(self._map, at)
        return _usage(counts, self._clock - began)

    def free(self, slot: int) -> None:
        """Its record is written."""
        _NUMBER.pack_into(self._map, slot * _SLOT, 0)
        self._free.append(slot)

    def close(self) -> None:
        """Remove the file; everything in it has been recorded."""
        self._map.close()
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def read_meter(data: bytes) -> Iterator[Slot]:
    """What a replica that has gone was doing. A slot with a damaged account is left out."""
    if len(data) < _SLOT:
        return
    magic, slots, clock = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return
    for at in range(_SLOT, min(len(data), (slots + 1) * _SLOT), _SLOT):
        number, *counts, began, state, length, checksum = _FIXED.unpack_from(data, at)
        text = data[at + _FIXED.size : at + _FIXED.size + length]
        sound = length <= _SLOT - _FIXED.size and zlib.crc32(text) == checksum
        if number and sound and state < len(OUTCOMES):
            account = msgspec.msgpack.decode(text, type=Account)
            yield Slot(number - 1, account, _usage(counts, clock - began), OUTCOMES[state])


def _usage(counts: list[int], seconds: float) -> Usage:
    prompt, cached, generated, embedded = counts
    return Usage(
        prompt=prompt,
        cached=cached,
        generated=generated,
        embedded=embedded,
        seconds=max(0.0, seconds),
    )


def _fitting(account: Account) -> bytes:
    """As msgpack that fits into a slot: long places are hashed, long paths of models cut."""
    text = msgspec.msgpack.encode(account)
    if len(text) > _SLOT - _FIXED.size:
        place, model = f"~{zlib.crc32(account.place.encode()):08x}", account.model[:200]
        text = msgspec.msgpack.encode(msgspec.structs.replace(account, place=place, model=model))
    if len(text) > _SLOT - _FIXED.size:
        raise StateError("the names of a call are too long to be counted", where=account.stage[:80])
    return text
