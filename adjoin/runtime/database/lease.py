"""One service at a time writes the journal.

SQLite: a lock on a file beside the database, which ends with its process. PostgreSQL: an advisory
lock of the session that writes, so that a service which lost its connection cannot write as if it
still led: it has to get the lock again first.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from adjoin.errors import StateError

_NUMBER = 0x61646A6F696E  # "adjoin"
_AGAIN_S = 0.2

_log = logging.getLogger("adjoin.database")


class Lease:
    """Held, or not. ``path`` is the file to be locked; None for PostgreSQL's own lock."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = -1
        self._leads = False

    async def take(
        self, write: Callable[[Any], Awaitable[Any]], patience: float | None, where: str
    ) -> None:
        """Wait for the lease; ``write`` runs a function on the connection that writes.

        Raises:
            StateError: another service has it, and kept it for ``patience`` seconds.
        """
        until = None if patience is None else time.monotonic() + patience
        told = False
        while not (self._lock_file() if self._path is not None else await write(_try_lock)):
            if until is not None and time.monotonic() >= until:
                raise _taken(where)
            if not told:
                _log.warning("waiting for the service that is active on %s", where)
                told = True
            await asyncio.sleep(_AGAIN_S)
        self._leads = True

    def renewed(self, connection: Connection, where: str) -> None:
        """Another connection writes now; whoever leads has to get its lock again.

        Raises:
            StateError: another service has it.
        """
        if self._leads and self._path is None:
            with connection.begin():
                if not _try_lock(connection):
                    raise _taken(where)

    def release(self) -> None:
        """Give it back; PostgreSQL's ends with its connection."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._leads = False

    def _lock_file(self) -> bool:
        assert self._path is not None
        lock = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True


def _try_lock(connection: Connection) -> bool:
    return bool(connection.execute(text(f"SELECT pg_try_advisory_lock({_NUMBER})")).scalar())


def _taken(where: str) -> StateError:
    return StateError(
        "another service is active on this state",
        where=where,
        hint="end it first, or give this one a home or database_url of its own",
    )
