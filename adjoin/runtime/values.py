"""Values on the disk, by the sha256 of their bytes: what durable runs record and is not small.

A value is written to a temporary file, fsynced, renamed and its folder fsynced before anything
names it, so that a name in the journal always has its bytes; they are checked when they are read.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from adjoin.errors import StateError
from adjoin.transport.codec import Encoded, on_host

#: A file younger than this may belong to a run that is about to record it.
_YOUNG_S = 3600.0


def pack(value: Encoded) -> bytes:
    """A value as one byte string."""
    return msgspec.msgpack.encode((value.header, *map(bytes, on_host(value.buffers))))


def unpack(data: bytes, where: str = "") -> Encoded:
    """The inverse of :func:`pack`; raises :class:`StateError`."""
    try:
        header, *buffers = msgspec.msgpack.decode(data, type=list[bytes])
    except (msgspec.MsgspecError, ValueError) as error:
        raise StateError(f"a recorded value is damaged: {error}", where=where) from None
    return Encoded(header, tuple(buffers))


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def checked(data: bytes, digest: bytes, where: str) -> bytes:
    """``data``, when it is what the digest says; raises :class:`StateError`."""
    if digest_of(data) != digest:
        raise StateError(
            "a recorded value is damaged: its bytes are not those that were written",
            where=where,
            hint="check the disk; what needs the value is computed again",
        )
    return data


class ValueStore:
    """A folder of values, two levels deep. Methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> bytes:
        """Keep these bytes, and return their digest; they are on the disk when this returns.

        Raises:
            StateError: they cannot be written.
        """
        digest = digest_of(data)
        path = self._path(digest)
        try:
            if path.exists():
                os.utime(path)  # a sweep leaves it to whoever is about to name it
                return digest
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = path.with_name(f".{secrets.token_hex(8)}")
            try:
                _write(temporary, data)
                temporary.rename(path)
            finally:
                temporary.unlink(missing_ok=True)
            for folder in (path.parent, self._folder):
                _sync(folder)
        except OSError as error:
            raise StateError(
                f"a value cannot be kept: {error.strerror}",
                where=str(self._folder),
                hint="free space on its disk, or check the folder's owner",
            ) from None
        return digest

    def get(self, digest: bytes) -> bytes:
        """The bytes of a digest.

        Raises:
            StateError: they are not there, or damaged.
        """
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StateError(
                f"a recorded value cannot be read: {error.strerror}", where=str(path)
            ) from None
        return checked(data, digest, str(path))

    def sweep(self, named: Callable[[bytes], bool]) -> int:
        """Delete what is old and no journal names; returns the bytes that this freed."""
        freed, now = 0, time.time()
        for path in self._files():
            try:
                about = path.stat()
                old = now - about.st_mtime > _YOUNG_S
                if old and (path.name.startswith(".") or not named(bytes.fromhex(path.name))):
                    path.unlink()
                    freed += about.st_size
            except FileNotFoundError:
                continue  # another sweep was quicker
        return freed

    def _files(self) -> Iterator[Path]:
        if self._folder.is_dir():
            yield from (path for path in self._folder.glob("[0-9a-f][0-9a-f]/*") if path.is_file())

    def _path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self._folder / name[:2] / name


def _write(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    finally:
        os.close(file)


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
