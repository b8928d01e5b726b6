"""Where the database is, and how it is opened: its file, its checks, its migrations."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError

from adjoin.errors import InputError, StateError
from adjoin.runtime.database.database import Database
from adjoin.runtime.database.failures import DATABASE_ERRORS, failure
from adjoin.runtime.database.lease import Lease
from adjoin.runtime.database.mark import Mark
from adjoin.runtime.database.tables import commits
from adjoin.settings import Settings

_BUSY_S = 5.0
_CONNECT_S = 10
_POSTGRESQL = "postgresql+psycopg"
_VERSIONS = Path(__file__).parent / "migrations" / "versions"
_MIGRATION_LOCK = 0x61646A6F696F


def state_path(settings: Settings) -> Path:
    """The file of SQLite, when ``database_url`` names no other database."""
    return settings.home / "gateway" / "state.db"


def database_url(settings: Settings) -> URL:
    """Where the state is.

    Raises:
        InputError: the URL is none, or of another kind of database.
    """
    named = settings.database_url.get_secret_value()
    if not named:
        return URL.create("sqlite", database=str(state_path(settings)))
    hint = "write postgresql://user:password@host/name, or sqlite:////path/to/file"
    try:
        url = make_url(named)
    except ArgumentError:
        raise InputError("this is no URL of a database", where="database_url", hint=hint) from None
    kind = url.get_backend_name()
    if kind == "postgresql":
        return url.set(drivername=_POSTGRESQL)
    if kind == "sqlite" and url.database:
        return url.set(drivername="sqlite")
    raise InputError(f"there is no support for {kind}", where="database_url", hint=hint)


def open_file(path: Path) -> Database:
    """A database of SQLite in this file; as :func:`open_database`."""
    return open_database(URL.create("sqlite", database=str(path)))


def open_database(url: URL, *, check: bool = False) -> Database:
    """Open the database, making what there is not, and bring its tables up to date.

    Args:
        check: read all of SQLite's file and look for damage; seconds for each gigabyte.

    Raises:
        StateError: it cannot be opened, is damaged, lacks what was acknowledged, or was written by
            a later version.
    """
    where = url.render_as_string(hide_password=True)
    path = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
    mark: Mark | None = None
    what = "the service's state cannot be opened"
    try:
        if path is not None:
            where = str(path)
            _make_file(path)
            mark = Mark(path.with_name(f"{path.name}.mark"))  # read before the database is
        engine = _engine(url)
        try:
            with engine.connect().execution_options(adjoin_writes=True) as connection:
                if check and path is not None:
                    _check(connection, where)
                _migrate(connection, where)
                if mark is not None:
                    with connection.begin():
                        mark.check(connection.execute(select(commits.c.number)).scalar_one(), where)
        except BaseException:
            engine.dispose()
            if mark is not None:
                mark.close()
            raise
    except DATABASE_ERRORS as error:
        raise failure(error, what, where) from None
    lock = None if path is None else path.with_name(f"{path.name}.lock")
    return Database(engine, Lease(lock), where, mark)


def _make_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Made before SQLite does, so that it was never readable for others.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
    path.chmod(0o600)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _BUSY_S})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # What is committed is on the server's disk, whatever its configuration prefers.
    arguments = {"connect_timeout": _CONNECT_S, "options": "-c synchronous_commit=on"}
    return create_engine(url, connect_args=arguments, pool_pre_ping=True)


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy says when a transaction begins, not the module
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "cell_size_check = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later could not wait for another process's.
    writes = connection.get_execution_options().get("adjoin_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check(connection: Connection, where: str) -> None:
    with connection.begin():
        found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(5)")]
    if found != ["ok"]:
        raise StateError(
            f"the service's state is damaged: {found[0]}",
            where=where,
            hint="restore a backup, or look at it with `sqlite3 FILE .recover`",
        )


def _migrate(connection: Connection, where: str) -> None:
    """Run the migrations that are missing; one process at a time."""
    head = max(file.name for file in _VERSIONS.glob("[0-9]*.py")).partition("_")[0]
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        found = _revision(connection)
        if found > head:
            raise StateError(
                f"the service's state is of a later version: {found}, not {head}",
                where=where,
                hint="use the version of adjoin that wrote it, or a later one",
            )
        if found < head:
            _upgrade(connection)


def _revision(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_VERSIONS.parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
