"""Which documents a path holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import msgspec

from adjoin.errors import InputError, NotFound
from adjoin.functions.ingest.documents import Limits
from adjoin.functions.ingest.passages import Chunking

SUFFIXES = frozenset({".md", ".txt", ".html", ".htm", ".pdf"})
#: Part of every digest: raise it when the same file would give other sections.
_PARSER_VERSION = 1


class Found(msgspec.Struct, frozen=True):
    """``digest`` covers the file's content and how it is parsed and cut."""

    path: Path
    digest: str


def scan(
    path: str | Path, *, chunking: Chunking | None = None, limits: Limits | None = None
) -> dict[str, Found]:
    """The documents in a folder, or the one document, by source and sorted.

    A source is the path as it was given, with the rest of the way below it: name a folder in the
    same way each time. Hidden files, other suffixes and links out of the folder are left out.

    Raises:
        NotFound: there is nothing at ``path``.
        InputError: it holds no supported document, too many, or cannot be read.
    """
    root, limits = Path(path).expanduser(), limits or Limits()
    salt = f"{_PARSER_VERSION}\0{(chunking or Chunking()).check()}\0".encode()
    try:
        if not root.exists():
            raise NotFound("no such file or folder", where=str(path), hint="check the path")
        if not root.is_dir():
            return {_source(path, root): _file(root, salt, limits)}
        found = {
            _source(path, file): Found(file, _digest(file, salt, limits))
            for file in _bounded(root, limits.max_files)
        }
    except OSError as error:
        _unreadable(error, str(path))
    if not found:
        raise InputError(
            "the folder has no documents", where=str(path), hint=f"supported are {_supported()}"
        )
    return dict(sorted(found.items()))


def belongs(source: str, path: str | Path) -> bool:
    """Whether :func:`scan` of ``path`` could give ``source``."""
    prefix = _name(path)
    return source == prefix or source.startswith(prefix.rstrip("/") + "/")


def _source(path: str | Path, file: Path) -> str:
    root = Path(path).expanduser()
    if file == root:
        return _name(path)
    return f"{_name(path).rstrip('/')}/{file.relative_to(root).as_posix()}"


def _name(path: str | Path) -> str:
    # "docs", "docs/" and "./docs" are one folder; "." stays "." so that its files are told apart
    # from texts that were added under a title.
    return Path(os.path.normpath(Path(path).expanduser())).as_posix()


def _file(file: Path, salt: bytes, limits: Limits) -> Found:
    if file.suffix.lower() not in SUFFIXES or not file.is_file():
        raise InputError(
            "not a document that can be read", where=str(file), hint=f"supported are {_supported()}"
        )
    return Found(file, _digest(file, salt, limits))


def _bounded(root: Path, most: int) -> Iterator[Path]:
    for count, file in enumerate(_walk(root), start=1):
        if count > most:
            raise InputError(
                f"the folder has more than {most} documents",
                where=str(root),
                hint="add its subfolders one by one",
            )
        yield file


def _walk(root: Path) -> Iterator[Path]:
    home = root.resolve()
    # A subfolder that cannot be read is an error: its documents would seem to be gone.
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if name.startswith(".") or file.suffix.lower() not in SUFFIXES:
                continue
            if file.is_file() and file.resolve().is_relative_to(home):
                yield file


def _digest(file: Path, salt: bytes, limits: Limits) -> str:
    stat = file.stat()
    if stat.st_size > limits.max_file_bytes:
        # It will be reported when it is parsed; until then its content does not matter.
        return f"too large: {stat.st_size} bytes at {stat.st_mtime_ns}"
    try:
        with file.open("rb") as content:
            inner = hashlib.file_digest(content, "sha256").digest()
    except PermissionError:
        return f"unreadable: {stat.st_size} bytes at {stat.st_mtime_ns}"
    return hashlib.sha256(salt + inner).hexdigest()


def _raise(error: OSError) -> NoReturn:
    raise error


def _unreadable(error: OSError, path: str) -> NoReturn:
    raise InputError(
        f"it cannot be read: {error.strerror or error}",
        where=str(error.filename or path),
        hint="check the permissions",
    ) from error


def _supported() -> str:
    return ", ".join(sorted(SUFFIXES))
