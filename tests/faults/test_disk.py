"""A full disk, a failed fsync, a torn tail, a flipped bit: refused or detected, and nothing is lost
that was accepted.

The usage log's own are in tests/runtime/test_usage_log.py.
"""

from __future__ import annotations

import random
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from durable_flows import TEXT
from pydantic import SecretStr
from sqlalchemy import Connection, event
from storm import Service, Storm

from adjoin import Settings
from adjoin.errors import StateError
from adjoin.runtime import moves as m
from adjoin.runtime.database import Database, database_url, journal, open_database, open_file
from adjoin.runtime.database.journal import Accepted, Recording, Shown
from adjoin.runtime.gateway import create_app
from adjoin.runtime.gateway.keys import KeyStore
from adjoin.runtime.gateway.server import uvicorn_config
from adjoin.runtime.values import ValueStore
from adjoin.transport import codec
from adjoin.types import Usage

pytestmark = pytest.mark.timeout(120)
_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
_SMALL = """
mkdir "$1.small" && mount -t tmpfs -o size=1536k small "$1.small" && cp -a "$1/." "$1.small" &&
mount --move "$1.small" "$1" && shift && exec "$@"
"""
LATER = {"Prefer": "respond-async"}


def _until(holds: Any, limit: float = 40.0) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


# --- full -----------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Service]:
    """A service whose database is on a disk of 1.5 MB."""
    if subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system allows no namespaces")
    folder = str(tmp_path / "gateway")
    made = Service(tmp_path, wrapper=[*_NAMESPACE, "sh", "-c", _SMALL, "sh", folder])
    made.start()
    yield made
    made.end()


def _fill(ballast: Path) -> None:
    """Leave no room, not for a byte."""
    with ballast.open("ab", buffering=0) as file:
        for size in (4096, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break


def test_a_full_disk_refuses_what_has_to_be_kept_and_loses_nothing(small: Service) -> None:
    storm = Storm(small, seed=3, runs=3, gone=False)
    storm.deploy()
    for thread in storm.send_all():
        thread.join()
    accepted = [call for call in storm.history.calls if call.run]
    assert len(accepted) == 3
    assert small.process is not None
    ballast = Path(f"/proc/{small.process.pid}/root{small.home}/gateway/ballast")
    _fill(ballast)
    refused: httpx2.Response | None = None
    for number in range(100, 1000):  # what the log has room for already is still taken
        storm.send(number)
        if storm.history.calls[-1].outcome == "failed":
            break
    body = {"number": 1, "log": str(storm.log), "path": str(storm.go)}
    times = []
    with small.client() as client:
        for _ in range(10):
            began = time.perf_counter()
            refused = client.post("/api/v1/workflows/steps/invoke", json=body, headers=LATER)
            times.append(time.perf_counter() - began)
            assert refused.status_code == 503, refused.text
        assert refused is not None and int(refused.headers["Retry-After"]) > 0
        problem = refused.json()
        assert "nothing can be accepted that has to be kept" in problem["detail"]
        assert problem["retryable"]
        assert min(times) < 0.05
        done = small.home / "done"
        done.touch()
        plain = client.post("/api/v1/workflows/steps/invoke", json={**body, "path": str(done)})
        assert plain.status_code == 200, plain.text
    storm.go.touch()  # they end now, which cannot be written, so that nobody is told
    ballast.unlink()
    storm.history.calls[:] = [call for call in storm.history.calls if call.run]
    storm.settle(60)
    assert storm.history.problems() == []
    storm.send(2000)  # and new ones are taken again
    assert storm.history.calls[-1].run


# --- an error of the disk -------------------------------------------------------------------------


def _serve(settings: Settings) -> Iterator[tuple[Any, httpx2.Client]]:
    """A service in this process, at whose seams can be pulled, and a client of it."""
    app = create_app(settings)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn_config(app, settings))
    started = threading.Event()
    app.state.service.on_started = started.set
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        assert started.wait(50)
        key = KeyStore(app.state.service.database).create(scopes=("invoke", "deploy", "observe"))[1]
        address = "http://{}:{}".format(*listening.getsockname())
        headers = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=address, headers=headers, timeout=20) as client:
            client.put("/api/v1/workflows/steps", content=TEXT).raise_for_status()
            yield app.state.service, client
    finally:
        server.should_exit = True
        thread.join(40)


def test_what_could_not_be_synced_is_never_acknowledged(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path,
        host_linger_s=1.0,
        drain_timeout_s=1,
        allowed_modules=("durable_flows",),
        allowed_models=("fake:",),
    )
    go = tmp_path / "go"
    body = {"number": 1, "log": str(tmp_path / "log"), "path": str(go)}
    place = "/api/v1/workflows/steps/invoke"
    serving = _serve(settings)
    service, client = next(serving)
    first = client.post(place, json=body, headers=LATER).raise_for_status().json()["id"]

    def failing(connection: Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise error

    event.listen(service.database._engine, "commit", failing)
    for _ in range(2):
        refused = client.post(place, json=body, headers={**LATER, "Idempotency-Key": "one"})
        assert refused.status_code == 503, refused.text
    event.remove(service.database._engine, "commit", failing)
    # The disk may work again, but what is on it is not known before it was looked at.
    assert client.post(place, json=body, headers=LATER).status_code == 503
    assert client.get("/readyz").status_code == 503
    go.touch()
    assert client.post(place, json=body).status_code == 200, "plain runs go on"
    assert client.get(f"/api/v1/runs/{first}").json()["state"] in ("queued", "running")
    next(serving, None)

    serving = _serve(settings)
    service, client = next(serving)
    _until(lambda: client.get(f"/api/v1/runs/{first}").json()["state"] == "succeeded")
    runs = client.get("/api/v1/runs").json()["runs"]
    assert [run["id"] for run in runs] == [first], "nothing that was refused ran"
    next(serving, None)


# --- a torn tail ----------------------------------------------------------------------------------


def _there(folder: Path) -> set[str]:
    """The ids of runs that the database in a folder has; raises StateError when it is damaged."""
    url = database_url(Settings(home=folder))
    database = open_database(url, check=True)
    try:
        return set(database.read_now(journal.unfinished))
    finally:
        database.close()


def _copy(folder: Path, to: Path) -> Path:
    """A home with a copy of the database; returns its log."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to / "gateway")
    return to / "gateway" / "state.db-wal"


def test_a_log_that_lost_its_tail_or_a_bit_is_told_from_one_that_was_never_written(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    service = Service(home)
    service.start()
    storm = Storm(service, seed=5, runs=12, gone=False)
    storm.deploy()
    for thread in storm.send_all():
        thread.join()
    service.kill("all")
    accepted = {call.run for call in storm.history.calls if call.run}
    assert len(accepted) == 12
    folder, copy = home / "gateway", tmp_path / "copy"
    data = (folder / "state.db-wal").read_bytes()
    _copy(folder, copy)
    assert accepted <= _there(copy)
    _copy(folder, copy).write_bytes(data + random.Random(1).randbytes(9000))
    assert accepted <= _there(copy), "what never was committed is dropped"
    detected = 0
    sizes = [*range(0, len(data), len(data) // 40), len(data) - 1]
    for size in sizes:
        _copy(folder, copy).write_bytes(data[:size])
        detected += _lost(copy, accepted)
        changed = bytearray(data)
        changed[size] ^= 1 << size % 8
        _copy(folder, copy).write_bytes(changed)
        _lost(copy, accepted)
    _copy(folder, copy).unlink()
    assert _lost(copy, accepted)
    # At the very end may be what was killed before anybody was told of it.
    assert detected > len(sizes) // 2


def _lost(copy: Path, accepted: set[str]) -> bool:
    """Whether the start was refused; where it was not, all runs have to be there."""
    try:
        there = _there(copy)
    except StateError as error:
        assert "damaged" in str(error)
        return True
    assert accepted <= there
    return False


# --- a flipped bit --------------------------------------------------------------------------------


def _written(path: Path) -> dict[str, Any]:
    """A database with 30 runs, and what has to be read from it."""
    database = open_file(path)
    value = codec.encode({"answer": "x" * 300})
    for number in range(30):
        run = Accepted(
            id=f"run-{number}",
            tenant="t",
            workflow="w",
            version="v",
            revision=1,
            inputs=codec.encode({"number": number, "text": "y" * 200}),
            streaming=False,
            created=float(number),
            deadline=1e12,
            key=f"key-{number}",
        )

        def write(connection: Connection, run: Accepted = run, number: int = number) -> None:
            journal.accept(connection, run, b"graph" * 100)
            result = m.Result(1, Usage(), value)
            journal.record(connection, run.id, [Recording("stage", result)])
            journal.show(connection, run.id, [Shown(n, "Tokens", b"z" * 100) for n in range(3)])

        database.write_now(write)
    found = _read(database)
    database.close()
    return found


def _read(database: Database) -> dict[str, Any]:
    """Of each run what it was accepted with, its result and its events; an error in their place
    where they are damaged."""
    return {id: _of(database, id) for id in (f"run-{number}" for number in range(30))}


def _of(database: Database, id: str) -> Any:
    def read(connection: Connection) -> Any:
        known = journal.find(connection, id)
        if known is None:
            return None
        past = journal.past_of(connection, known)
        value = past.results["stage"].value if "stage" in past.results else None
        return known.accepted, known.graph, value, journal.shown_of(connection, id)

    try:
        return database.read_now(read)
    except StateError as error:
        return error


def test_a_bit_that_flips_in_the_database_is_never_believed(tmp_path: Path) -> None:
    right = _written(tmp_path / "right" / "state.db")
    source = tmp_path / "right" / "state.db"
    data = source.read_bytes()
    chance = random.Random(11)
    refused = told = 0
    path = tmp_path / "wrong" / "state.db"
    path.parent.mkdir()
    for _ in range(200):
        for each in path.parent.iterdir():
            each.unlink()
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            database = open_database(
                database_url(Settings(database_url=SecretStr(f"sqlite:///{path}"))),
                check=True,
            )
        except StateError:
            refused += 1
            continue
        found = _read(database)
        database.close()
        wrong = {id for id in right if found[id] != right[id]}
        told += bool(wrong)
        for id in wrong:
            lacks = isinstance(found[id], tuple) and found[id][2] is None  # computed again
            assert isinstance(found[id], StateError) or lacks, (id, found[id])
    assert refused > 10 and told > 10, (refused, told)


def test_a_bit_that_flips_in_a_value_is_found_when_it_is_read(tmp_path: Path) -> None:
    store = ValueStore(tmp_path)
    digest = store.put(b"value" * 50)
    (path,) = (each for each in tmp_path.rglob("*") if each.is_file())
    data = path.read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 4
        path.write_bytes(changed)
        with pytest.raises(StateError, match="damaged"):
            store.get(digest)
    path.write_bytes(data[:-1])
    with pytest.raises(StateError, match="damaged"):
        store.get(digest)
