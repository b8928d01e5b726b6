"""`adjoin serve` as a process: a new version and SIGTERM under load lose no request."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from serving import Process
from texts import text

from adjoin.runtime.database import open_file
from adjoin.runtime.gateway.keys import SCOPES, KeyStore

OPTIONS = ("--set", 'allowed_modules=["gateway_flows"]')
INVOKE = "/api/v1/workflows/loaded/invoke"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def key(home: Path) -> str:
    keys = KeyStore(open_file(home / "gateway" / "state.db"))
    return keys.create("default", SCOPES[:-1])[1]


@pytest.fixture
def process(home: Path, key: str) -> Iterator[Process]:
    with Process(home, *OPTIONS) as made:
        yield made


class Load:
    """Clients that call as fast as they are answered, each on a connection of its own."""

    def __init__(self, url: str, key: str, clients: int = 4) -> None:
        self.failed: list[str] = []
        self.versions: set[str] = set()
        self.succeeded = 0
        self._ending = threading.Event()
        self._clients = [
            threading.Thread(target=self._call, args=(url, key)) for _ in range(clients)
        ]
        for client in self._clients:
            client.start()

    def end(self) -> None:
        self._ending.set()
        for client in self._clients:
            client.join(30)

    def _call(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=url, headers=headers, timeout=30) as client:
            while not self._ending.is_set():
                try:
                    answer = client.post(INVOKE, json={"text": "a"})
                except httpx2.ConnectError:
                    return  # the port is closed: a balancer would have gone elsewhere
                except httpx2.HTTPError as error:
                    self.failed.append(repr(error))
                    return
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                    return
                self.succeeded += 1
                self.versions.add(answer.json()["outputs"]["result"])


def _reach(load: Load, count: int) -> None:
    """Wait until that many requests more were answered."""
    goal = load.succeeded + count
    deadline = time.monotonic() + 30
    while load.succeeded < goal and not load.failed:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_a_new_version_and_the_end_lose_no_request(
    process: Process, key: str, tmp_path: Path
) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=process.url, headers=headers, timeout=30) as client:
        client.put("/api/v1/workflows/loaded", content=text("loaded"))
        client.put("/api/v1/workflows/waits", content=text("waits", "wait_for", "path"))
        load = Load(process.url, key)
        _reach(load, 50)
        assert load.versions == {"A"}
        client.put("/api/v1/workflows/loaded", content=text("loaded", "same"))
        _reach(load, 50)
        assert load.versions == {"A", "a"}
        go = tmp_path / "go"
        accepted = client.post(
            "/api/v1/workflows/waits/invoke",
            json={"path": str(go)},
            headers={"Prefer": "respond-async"},
        )
        assert accepted.status_code == 202
    ended = threading.Thread(target=process.end)
    ended.start()
    load.end()
    assert load.failed == []
    assert process.process.poll() is None, "it waits for the run that it has accepted"
    go.touch()
    ended.join(50)
    assert process.process.returncode == 0


def test_what_was_deployed_is_there_after_a_restart(home: Path, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    with Process(home, *OPTIONS) as first:
        place = f"{first.url}/api/v1/workflows/loaded"
        assert httpx2.put(place, content=text("loaded"), headers=headers).json()["changed"]
        assert first.end() == 0
    with Process(home, *OPTIONS) as second:
        place = f"{second.url}{INVOKE}"
        answer = httpx2.post(place, json={"text": "a"}, headers=headers, timeout=30)
        assert second.end() == 0
    assert answer.json()["outputs"] == {"result": "A"}


def test_what_cannot_start_says_so_in_one_line(tmp_path: Path) -> None:
    def serve(*arguments: str) -> tuple[int, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "adjoin.cli", "serve", *arguments],
            env=os.environ | {"ADJOIN_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=50,
        )
        return ended.returncode, ended.stderr

    for arguments, code, said in (
        (("nothing.yaml",), 4, "nothing.yaml"),
        (("--dev", "--host", "0.0.0.0"), 3, "development mode"),
        (("--host", "0.0.0.0"), 3, "allowed_hosts"),
        (("--scheduler", "tcp://127.0.0.1:9", "--set", "connect_timeout_s=1"), 11, "scheduler"),
    ):
        returned, error = serve("--port", "0", *arguments)
        assert (returned, error.count("\n")) == (code, 1), error
        assert said in error


def test_the_loss_of_the_scheduler_loses_no_request(process: Process, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    place = f"{process.url}/api/v1/workflows/loaded"
    httpx2.put(place, content=text("loaded"), headers=headers)
    load = Load(process.url, key)
    _reach(load, 20)
    started = psutil.Process(process.process.pid).children()
    # the first of its own processes that it starts; the workers come when that is ready
    scheduler = min(
        (each for each in started if "adjoin.runtime.member" in each.cmdline()),
        key=lambda each: each.create_time(),
    )
    scheduler.kill()
    _reach(load, 200)
    deadline = time.monotonic() + 15
    while len(_members(process)) < 3:
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)
    _reach(load, 50)
    load.end()
    assert load.failed == []


def _members(process: Process) -> list[int]:
    children = psutil.Process(process.process.pid).children()
    return [
        each.pid
        for each in children
        if each.status() != psutil.STATUS_ZOMBIE and "adjoin.runtime.member" in each.cmdline()
    ]


def test_budgets_are_settings_of_the_command_line(home: Path, key: str) -> None:
    says = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: endless}
spec:
  models: {m: {source: "fake:", args: {words: 400, interval_s: 0.002}}}
  stages: {say: {uses: generate, with: {prompt: "one two", model: m, max_tokens: 400}}}
  outputs: {said: "${say}"}
"""
    budgets = ("run_tokens=12", "tenant_day_tokens=20", 'tenants={"*": {"tokens_per_day": 5000}}')
    given = [part for each in budgets for part in ("--set", each)]
    headers = {"Authorization": f"Bearer {key}"}
    with (
        Process(home, "--set", 'allowed_models=["fake:"]', *given) as process,
        httpx2.Client(base_url=process.url, headers=headers, timeout=30) as client,
    ):
        client.put("/api/v1/workflows/endless", content=says).raise_for_status()
        told = []
        for query in ({}, {"budget": 100}, {}):
            answer = client.post("/api/v1/workflows/endless/invoke", params=query, json={})
            assert answer.status_code == 429, answer.text
            told.append(answer.json()["detail"])
        assert "the run's budget of 12 tokens" in told[0]
        assert "the tenant's budget of 20 tokens a day" in told[1]
        assert "the tenant's budget of 20 tokens a day" in told[2]
        (line,) = client.get("/api/v1/usage").json()["usage"]
        assert sum(line["billed"][kind] for kind in ("prompt", "generated")) == 20
