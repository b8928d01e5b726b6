"""What a database's errors mean to whoever runs the service."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from adjoin.errors import StateError

#: After these nothing that is in SQLite's cache can be trusted to be on the disk.
_FATAL = ("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")
#: The disk is full, also for the index of the log, which is made anew and holds nothing of its own.
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
_HINTS = {
    **dict.fromkeys(_FULL, "free space on its disk; what was accepted is kept"),
    "SQLITE_BUSY": "another process holds its lock; see which has the file open",
    "SQLITE_READONLY": "check the owner of the file and its folder",
    "SQLITE_CANTOPEN": "check the owner of the file and its folder",
    "SQLITE_CORRUPT": "restore a backup, or look at it with `sqlite3 FILE .recover`",
    "SQLITE_NOTADB": "restore a backup; this file is no database",
    "SQLITE_IOERR": "check the disk, then restart the service",
}
_PERMANENT = "check its server and database_url"


def is_fatal(error: BaseException) -> bool:
    """Whether the database must be opened, and so checked, again before anything is written."""
    name = _name(error)
    return name.startswith(_FATAL) and name not in _FULL


def failure(error: BaseException, what: str, where: str) -> StateError:
    """An error of a driver or of SQLAlchemy as one of ours; never with the query or its values."""
    cause = _cause(error)
    lines = str(cause).strip().splitlines()
    text = lines[0] if lines else type(cause).__name__
    name = _name(error)
    hint = next((text for code, text in _HINTS.items() if name.startswith(code)), _PERMANENT)
    return StateError(f"{what}: {text}", where=where, hint=hint, full=name in _FULL)


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig
    return error


def _name(error: BaseException) -> str:
    cause = _cause(error)
    return getattr(cause, "sqlite_errorname", "") if isinstance(cause, sqlite3.Error) else ""


#: Everything that a database may raise.
DATABASE_ERRORS = (SQLAlchemyError, sqlite3.Error, OSError)
