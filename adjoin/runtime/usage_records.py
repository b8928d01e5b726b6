"""What calls of models consumed, as records of a file: framed, checksummed, read back. Pure.

A record is a header of two bytes to recognise it, four for the length of its body and four for the
CRC-32 of length and body; then the body, msgpack. Whatever was cut off or changed is recognised: it
is never taken for another record.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from adjoin.functions.engines.base import Account
from adjoin.types import Usage

Outcome: TypeAlias = Literal["ended", "aborted", "failed", "interrupted", "load"]

#: The first byte is in no text in UTF-8, so that no name in a body can look like a record.
_MAGIC = b"\xff\xa9"
_LENGTH = struct.Struct(">I")
_HEADER = len(_MAGIC) + 2 * _LENGTH.size
#: Longest body: names of stages may be long, and nothing else is.
MAX_BODY = 65_536


class CallRecord(msgspec.Struct, frozen=True, array_like=True):
    """What one call of a model consumed, or the load of a replica.

    Attributes:
        seq: which request of the replica; with the log's id it is unique, however often it is read.
        usage: ``seconds`` are of the engine: each step's time is split among what was in it. Of a
            load, ``cold_start_seconds`` is how long it took.
        at: when it ended, in seconds since the epoch.
    """

    seq: int
    account: Account
    usage: Usage
    outcome: Outcome
    at: float


class Found(msgspec.Struct, frozen=True):
    """What was read.

    Attributes:
        size: bytes up to the end of the last record; what follows may still be being written.
        damaged: bytes before that which are no record.
    """

    records: list[CallRecord]
    size: int
    damaged: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CallRecord)


def pack(record: CallRecord) -> bytes:
    """One record as it stands in a file."""
    body = _encoder.encode(record)
    length = _LENGTH.pack(len(body))
    return b"".join((_MAGIC, length, _LENGTH.pack(zlib.crc32(body, zlib.crc32(length))), body))


def pack_all(records: Iterable[CallRecord]) -> bytes:
    return b"".join(map(pack, records))


def read(data: bytes) -> Found:
    """All whole records of a part of a file that begins where a record does."""
    records: list[CallRecord] = []
    position = size = damaged = 0
    while (start := data.find(_MAGIC, position)) >= 0:
        found = _record(data, start)
        if found is None:
            position = start + 1
            continue
        record, end = found
        damaged += start - size
        records.append(record)
        position = size = end
    return Found(records, size, damaged)


def _record(data: bytes, start: int) -> tuple[CallRecord, int] | None:
    at = start + len(_MAGIC)
    begin = start + _HEADER
    if begin > len(data):
        return None
    length, checksum = data[at : at + 4], data[at + 4 : begin]
    end = begin + _LENGTH.unpack(length)[0]
    if end - begin > MAX_BODY or end > len(data):
        return None
    body = data[begin:end]
    if _LENGTH.pack(zlib.crc32(body, zlib.crc32(length))) != checksum:
        return None
    try:
        return _decoder.decode(body), end
    except msgspec.MsgspecError:
        return None
