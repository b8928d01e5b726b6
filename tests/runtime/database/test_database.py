"""Writes in groups, errors that are told, and one service at a time; on both databases."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Connection, event, func, insert, make_url, select, text

from adjoin.errors import InputError, StateError
from adjoin.runtime.database import Database, database_url, open_database, open_file
from adjoin.runtime.database.failures import failure, is_fatal
from adjoin.runtime.database.tables import deployments, keys, metadata
from adjoin.settings import Settings

COUNT = select(func.count()).select_from(deployments)


def opened(url: str) -> Database:
    return open_database(database_url(Settings(database_url=SecretStr(url))))


@pytest.fixture
def database(state_url: str) -> Iterator[Database]:
    database = opened(state_url)
    yield database
    database.close()


def row(name: str) -> Any:
    values = {"tenant": "a", "name": name, "revision": 1, "created": 0.0, "text": ""}
    return insert(deployments).values(values)


async def test_a_write_is_there_for_another_process_when_it_returns(
    database: Database, state_url: str
) -> None:
    assert await database.write(row("one")) == 1
    other = opened(state_url)
    assert (await other.read(COUNT))[0][0] == 1
    other.close()


async def test_writes_that_come_together_are_one_transaction(database: Database) -> None:
    held: list[int] = []
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    transactions: list[int] = []

    def busy(connection: Connection) -> None:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()

    def note(connection: Connection) -> None:
        transactions.append(id(connection.get_transaction()))
        held.append(len(held))

    first = asyncio.ensure_future(database.write(busy))
    await asyncio.sleep(0)
    rest = [asyncio.ensure_future(database.write(note)) for _ in range(20)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *rest)
    assert held == list(range(20)), "in the order in which they came"
    assert len(set(transactions)) <= 2, "the first may have been alone"


async def test_a_write_that_fails_harms_no_other(database: Database) -> None:
    works = [row("x"), row("x"), row("y")]
    results = await asyncio.gather(
        *(database.write(each) for each in works), return_exceptions=True
    )
    assert [type(each) for each in results] == [int, StateError, int]
    assert (await database.read(COUNT))[0][0] == 2


async def test_what_fails_in_the_middle_leaves_nothing(database: Database) -> None:
    def half(connection: Connection) -> None:
        connection.execute(row("half"))
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await database.write(half)
    assert (await database.read(COUNT))[0][0] == 0


def test_the_migrations_end_at_the_tables(database: Database) -> None:
    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert database.read_now(differences) == []


def test_a_later_version_is_refused(database: Database, state_url: str) -> None:
    database.write_now(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StateError, match="later version"):
        opened(state_url)


async def test_one_service_is_active_and_the_next_one_takes_over(
    database: Database, state_url: str
) -> None:
    await database.lead(0)
    second = opened(state_url)
    with pytest.raises(StateError, match="another service"):
        await second.lead(0)
    waiting = asyncio.ensure_future(second.lead())
    await asyncio.to_thread(database.close)
    await asyncio.wait_for(waiting, 10)
    await second.write(row("mine"))
    second.close()


async def test_a_service_that_lost_its_connection_does_not_write_behind_the_next_one(
    postgresql: str, state_url: str
) -> None:
    if state_url.startswith("sqlite"):
        pytest.skip("the lock of a file is lost with its process only")
    first, second = opened(state_url), opened(state_url)
    await first.lead(0)
    name = make_url(state_url).database
    # its session ends, as by a restart of the server, and the other service is quicker
    kill = text(
        "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l JOIN pg_database d "
        f"ON d.oid = l.database WHERE l.locktype = 'advisory' AND d.datname = '{name}'"
    )
    assert second.read_now(lambda connection: connection.execute(kill).scalar()) == 1
    await second.lead(5)
    with pytest.raises(StateError):
        await first.write(row("stale"))
    with pytest.raises(StateError, match="another service"):
        await first.write(row("stale"))
    assert (await second.read(COUNT))[0][0] == 0
    first.close()
    second.close()


def test_the_tables_of_earlier_versions_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    old = sqlite3.connect(path)
    old.executescript(
        "CREATE TABLE keys (digest BLOB PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL,"
        " scopes TEXT NOT NULL, label TEXT NOT NULL, created REAL NOT NULL, expires REAL)"
        " STRICT, WITHOUT ROWID;"
        "INSERT INTO keys VALUES (x'00', 'k', 't', 'invoke', '', 1.0, NULL);"
    )
    old.close()
    database = open_file(path)
    assert [row.id for row in database.read_now(select(keys))] == ["k"]
    database.close()


def test_a_full_disk_is_told_and_then_writes_go_on(tmp_path: Path) -> None:
    database = open_file(tmp_path / "state.db")

    def limit(pages: int) -> Any:
        return lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar()

    database.write_now(limit(1))  # as many as there are
    big = row("big").values(text="x" * 1_000_000)
    with pytest.raises(StateError, match="full") as caught:
        database.write_now(big)
    assert "free space" in caught.value.hint
    assert database.broken is None
    database.write_now(limit(1_000_000))
    assert database.write_now(big) == 1
    database.close()


def test_commits_that_were_acknowledged_and_are_gone_are_noticed(tmp_path: Path) -> None:
    path, copy = tmp_path / "state.db", tmp_path / "copy.db"
    database = open_file(path)
    for number in range(5):
        database.write_now(row(f"w{number}"))
    for name in ("", "-wal", ".mark"):  # as after kill -9
        copy.with_name(copy.name + name).write_bytes(path.with_name(path.name + name).read_bytes())
    database.close()
    log = copy.with_name("copy.db-wal")
    log.write_bytes(log.read_bytes()[:-1])
    with pytest.raises(StateError, match=r"last 1 writes.*are gone") as caught:
        open_file(copy)
    assert "copy.db.mark" in caught.value.hint
    copy.with_name("copy.db.mark").unlink()  # whoever does as it says goes on with what is left
    database = open_file(copy)
    assert database.read_now(COUNT)[0][0] == 4
    database.write_now(row("new"))
    database.close()
    open_file(copy).close()


@pytest.mark.parametrize("content", [b"", b"\0" * 21, b"nonsense"])
def test_a_mark_that_is_not_legible_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.db.mark").write_bytes(content)
    database = open_file(tmp_path / "state.db")
    assert database.write_now(row("one")) == 1
    database.close()
    assert int((tmp_path / "state.db.mark").read_bytes()[:20]) == 1


def test_a_commit_that_fails_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = open_file(path)

    def failing(connection: Connection) -> None:
        raise sqlite3.OperationalError("the commit failed")

    event.listen(database._engine, "commit", failing)
    with pytest.raises(StateError, match="commit failed"):
        database.write_now(row("lost"))
    event.remove(database._engine, "commit", failing)
    other = open_file(path)
    assert other.write_now(row("theirs")) == 1
    other.close()
    assert database.write_now(row("ours")) == 1
    assert database.read_now(COUNT)[0][0] == 2
    database.close()


def test_no_room_for_the_index_of_the_log_is_a_full_disk() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_SHMSIZE"
    assert not is_fatal(error)
    found = failure(error, "it cannot be written", "here")
    assert "free space" in found.hint and found.details["full"]


def test_after_an_error_of_the_disk_nothing_is_written_until_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_file(tmp_path / "state.db")

    def failing(connection: Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise error

    with pytest.raises(StateError, match="disk I/O error"):
        database.write_now(failing)
    assert database.broken is not None
    with pytest.raises(StateError, match="disk I/O error"):
        database.write_now(row("later"))
    assert database.read_now(COUNT)[0][0] == 0
    database.close()


@pytest.mark.parametrize("where", ["head", "middle"])
def test_damage_is_found_when_the_service_starts(tmp_path: Path, where: str) -> None:
    path = tmp_path / "state.db"
    database = open_file(path)
    for number in range(200):
        database.write_now(row(f"w{number}").values(text="x" * 500))
    database.close()
    data = bytearray(path.read_bytes())
    start = 0 if where == "head" else len(data) // 2 // 4096 * 4096
    for offset in range(start, start + 16):
        data[offset] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(StateError) as caught:
        open_database(
            database_url(Settings(database_url=SecretStr(f"sqlite:///{path}"))), check=True
        )
    assert "backup" in caught.value.hint


@pytest.mark.parametrize("url", ["nonsense", "mysql://a/b", "sqlite://"])
def test_another_kind_of_database_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"database_url|support|URL"):
        database_url(Settings(database_url=SecretStr(url)))


def test_a_password_is_in_no_error(tmp_path: Path) -> None:
    url = f"postgresql://someone:secret-word@/x?host={tmp_path}"
    with pytest.raises(StateError) as caught:
        opened(url)
    assert "secret-word" not in f"{caught.value} {caught.value.__cause__}"
