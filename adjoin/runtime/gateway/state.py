"""The gateway's state file: keys, and what is deployed. Only its owner can read it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from adjoin.errors import StateError
from adjoin.settings import Settings

_BUSY_S = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    digest  BLOB PRIMARY KEY,
    id      TEXT NOT NULL UNIQUE,
    tenant  TEXT NOT NULL,
    scopes  TEXT NOT NULL,
    label   TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deployments (
    tenant   TEXT NOT NULL,
    name     TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created  REAL NOT NULL,
    text     TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
"""


def state_path(settings: Settings) -> Path:
    return settings.home / "gateway" / "state.db"


def open_state(path: Path) -> sqlite3.Connection:
    """Open the file, making it when there is none.

    Raises:
        StateError: it cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Made before SQLite does, so that it was never readable for others.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        path.chmod(0o600)
        # One thread at a time uses it; which one is the server's choice.
        db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
    except (OSError, sqlite3.Error) as error:
        raise StateError(
            f"the gateway's state cannot be opened: {error}",
            where=str(path),
            hint="check the folder's owner and its free space",
        ) from None
    return db


class Saved(msgspec.Struct, frozen=True):
    """A deployed workflow as its text; ``created`` is in seconds since the epoch."""

    tenant: str
    name: str
    revision: int
    created: float
    text: str


class SavedWorkflows:
    """What is deployed, so that it is there after a restart."""

    def __init__(self, state: sqlite3.Connection) -> None:
        self._db = state

    def all(self) -> list[Saved]:
        rows = self._db.execute("SELECT tenant, name, revision, created, text FROM deployments")
        return [Saved(*row) for row in rows]

    def put(self, saved: Saved) -> None:
        """Raises :class:`StateError` when it cannot be written; then nothing has changed."""
        row = (saved.tenant, saved.name, saved.revision, saved.created, saved.text)
        with _writing():
            self._db.execute("INSERT OR REPLACE INTO deployments VALUES (?, ?, ?, ?, ?)", row)

    def delete(self, tenant: str, name: str) -> None:
        """As :meth:`put`."""
        query = "DELETE FROM deployments WHERE tenant = ? AND name = ?"
        with _writing():
            self._db.execute(query, (tenant, name))


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StateError(
            f"the gateway's state cannot be written: {error}", hint="check the disk's free space"
        ) from None
