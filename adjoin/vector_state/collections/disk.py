"""The few file operations that a durable save consists of.

Each either happened and is on the disk when it returns, or raises. Tests crash a save at each.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def make_directory(path: Path) -> None:
    path.mkdir()


def write(path: Path, writer: Callable[[Path], None]) -> None:
    """Let ``writer`` create ``path``, then force it to the disk."""
    writer(path)
    sync(path)


def sync(path: Path) -> None:
    """Force a file's content, or a directory's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(source: Path, target: Path) -> None:
    """Give ``source`` the name ``target`` in one step."""
    source.replace(target)
    sync(target.parent)


def remove_tree(path: Path) -> None:
    shutil.rmtree(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes out; the system frees the lock when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
