"""The journal's steps, each of which may be repeated; retention; backups; damage."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, update

from adjoin.errors import StateError
from adjoin.runtime import moves as m
from adjoin.runtime.database import Database, database_url, journal, open_database, open_file
from adjoin.runtime.database.tables import events, recorded, runs
from adjoin.runtime.values import ValueStore, digest_of, pack, unpack
from adjoin.settings import Settings
from adjoin.transport import codec
from adjoin.types import Usage

GRAPH = b'{"name":"w"}'


@pytest.fixture
def database(state_url: str) -> Iterator[Database]:
    made = open_database(database_url(Settings(database_url=SecretStr(state_url))))
    yield made
    made.close()


def accepted(id: str, key: str | None = None, tenant: str = "t") -> journal.Accepted:
    return journal.Accepted(
        id=id,
        tenant=tenant,
        workflow="w",
        version="v",
        revision=1,
        inputs=codec.encode({"question": "why"}),
        streaming=False,
        created=1.0,
        deadline=9e9,
        key=key,
        fingerprint=b"f",
    )


def result(attempt: int, value: object = 1) -> m.Result:
    return m.Result(attempt, Usage(generated=attempt), codec.encode(value))


def shown(*numbers: int) -> list[journal.Shown]:
    return [journal.Shown(n, "Tokens", b"x" * 100) for n in numbers]


def test_each_step_done_twice_is_as_if_done_once(database: Database) -> None:
    def steps(connection: Connection) -> None:
        for _ in range(2):
            assert journal.accept(connection, accepted("r", "k"), GRAPH) == "r"
        for _ in range(2):
            journal.record(connection, "r", [journal.Recording("a", result(1))])
            journal.show(connection, "r", shown(0, 1))
        known = journal.find(connection, "r")
        assert known is not None
        assert list(journal.past_of(connection, known).results) == ["a"]
        assert journal.shown_of(connection, "r") == shown(0, 1)
        for _ in range(2):
            assert journal.end(connection, "r", "succeeded", 5.0, Usage(generated=3), result(0, 7))
        assert not journal.end(connection, "r", "failed", 6.0, Usage())

    database.write_now(steps)
    known = database.read_now(lambda c: journal.find(c, "r"))
    assert known is not None
    assert (known.state, known.ended, known.usage.generated) == ("succeeded", 5.0, 3)
    kept = database.read_now(lambda c: journal.outputs_of(c, "r"))
    assert isinstance(kept, codec.Encoded)
    assert codec.decode(kept) == 7


def test_a_key_names_one_run_of_its_tenant(database: Database) -> None:
    def steps(connection: Connection) -> None:
        assert journal.accept(connection, accepted("r1", "k"), GRAPH) == "r1"
        assert journal.accept(connection, accepted("r2", "k"), GRAPH) == "r1"
        assert journal.accept(connection, accepted("r3", "k", "other"), GRAPH) == "r3"
        assert journal.accept(connection, accepted("r4"), GRAPH) == "r4"
        assert journal.accept(connection, accepted("r5"), GRAPH) == "r5"

    database.write_now(steps)
    found = database.read_now(lambda c: journal.find_key(c, "t", "k"))
    assert found is not None
    assert found.accepted == accepted("r1", "k")


def test_a_later_attempt_replaces_an_earlier_one_and_never_the_other_way(
    database: Database,
) -> None:
    def attempt(number: int) -> int:
        def write(connection: Connection) -> None:
            journal.record(connection, "r", [journal.Recording("a", result(number, number))])

        database.write_now(write)
        known = database.read_now(lambda c: journal.find(c, "r"))
        assert known is not None
        return database.read_now(lambda c: journal.past_of(c, known)).results["a"].attempt

    database.write_now(lambda c: journal.accept(c, accepted("r"), GRAPH))
    assert [attempt(n) for n in (1, 102, 2, 101, 102)] == [1, 102, 102, 102, 102]


def test_what_flipped_on_the_disk_is_found(database: Database) -> None:
    def steps(connection: Connection) -> None:
        journal.accept(connection, accepted("r"), GRAPH)
        results = [journal.Recording("a", result(1)), journal.Recording("b", result(1))]
        journal.record(connection, "r", results)
        journal.show(connection, "r", shown(0))

    database.write_now(steps)
    damaged = pack(codec.encode(2))
    database.write_now(update(recorded).where(recorded.c.stage == "a").values(value=damaged))
    known = database.read_now(lambda c: journal.find(c, "r"))
    assert known is not None
    past = database.read_now(lambda c: journal.past_of(c, known))
    assert list(past.results) == ["b"], "it is made again"
    database.write_now(update(events).values(data=b"y" * 100))
    with pytest.raises(StateError, match="damaged"):
        database.read_now(lambda c: journal.shown_of(c, "r"))
    flipped = msgspec.msgpack.encode(msgspec.structs.replace(accepted("r"), tenant="u"))
    database.write_now(update(runs).values(accepted=flipped))
    with pytest.raises(StateError, match="damaged"):
        database.read_now(lambda c: journal.find(c, "r"))


def test_what_is_old_or_too_much_is_forgotten_and_nothing_that_is_open(
    database: Database,
) -> None:
    def steps(connection: Connection) -> None:
        for number in range(5):
            id = f"r{number}"
            journal.accept(connection, accepted(id), GRAPH)
            journal.show(connection, id, shown(0, 1))
            if number < 4:
                journal.end(connection, id, "succeeded", float(number), Usage())

    database.write_now(steps)
    assert database.read_now(lambda c: journal.expired(c, 2.0, 10**9, 10)) == ["r0", "r1"]
    assert database.read_now(lambda c: journal.expired(c, 2.0, 10**9, 1)) == ["r0"]
    assert set(database.read_now(lambda c: journal.expired(c, 0.0, 400, 10))) == {"r0", "r1"}
    database.write_now(lambda c: journal.forget(c, ["r0", "r1", "r4"]))
    left = database.read_now(lambda c: journal.of_tenant(c, "t", 10))
    assert {each.accepted.id for each in left} == {"r2", "r3", "r4"}
    assert database.read_now(journal.unfinished) == ["r4"]


def test_a_backup_of_a_running_service_is_restored(tmp_path: Path) -> None:
    database = open_file(tmp_path / "state.db")
    database.write_now(lambda c: journal.accept(c, accepted("r"), GRAPH))
    with sqlite3.connect(tmp_path / "state.db") as live:
        live.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
    live.close()
    database.write_now(lambda c: journal.end(c, "r", "succeeded", 2.0, Usage()))
    database.close()
    restored = open_file(tmp_path / "backup.db")
    assert restored.read_now(journal.unfinished) == ["r"], "as it was when it was made"
    restored.close()


class TestValueStore:
    def test_a_value_is_had_by_the_digest_of_its_bytes(self, tmp_path: Path) -> None:
        store = ValueStore(tmp_path)
        data = pack(codec.encode(np.arange(10_000)))
        digest = store.put(data)
        assert digest == digest_of(data) == store.put(data)
        assert codec.decode(unpack(store.get(digest))).tolist() == list(range(10_000))

    @pytest.mark.parametrize("harm", ["flip", "tear", "delete"])
    def test_damage_is_found_when_it_is_read(self, tmp_path: Path, harm: str) -> None:
        store = ValueStore(tmp_path)
        digest = store.put(b"x" * 1000)
        (path,) = (file for file in tmp_path.rglob("*") if file.is_file())
        data = path.read_bytes()
        if harm == "delete":
            path.unlink()
        else:
            path.write_bytes(b"y" + data[1:] if harm == "flip" else data[:500])
        with pytest.raises(StateError):
            store.get(digest)

    def test_a_disk_that_is_full_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.write", full)
        with pytest.raises(StateError, match="No space left"):
            ValueStore(tmp_path).put(b"x")
        assert not [file for file in tmp_path.rglob("*") if file.is_file()]

    def test_a_sweep_takes_what_is_old_and_has_no_name(self, tmp_path: Path) -> None:
        store = ValueStore(tmp_path)
        kept, gone, young = store.put(b"kept"), store.put(b"gone"), store.put(b"young")
        _age(tmp_path, kept, gone)
        assert store.sweep(lambda digest: digest == kept) == 4
        assert store.get(kept)
        assert store.get(young)
        with pytest.raises(StateError):
            store.get(gone)


def _age(folder: Path, *digests: bytes) -> None:
    import os

    for digest in digests:
        os.utime(folder / digest.hex()[:2] / digest.hex(), (0, 0))
