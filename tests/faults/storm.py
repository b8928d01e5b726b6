"""Kills of a service with durable runs open, at random moments.

    python tests/faults/storm.py --rounds 300 --seed 1 --what gateway,scheduler,all [--url …]
    python tests/faults/storm.py --rounds 10 --model smollm2-135m --models ~/adjoin/models

Each round sends asynchronous runs with keys of their own, sends some again, kills something with
SIGKILL, starts the service again when it is gone, and goes on. At the end every run is waited for,
and the history says whether a promise was broken: its exit status is 0 when none was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
from pydantic import SecretStr

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from durable_flows import TEXT, oracle  # noqa: E402
from history import ENDS, History, events_are_right  # noqa: E402

from adjoin import Settings  # noqa: E402
from adjoin.runtime.database import Database, database_url, open_database  # noqa: E402
from adjoin.runtime.gateway.keys import KeyStore  # noqa: E402

_START_S = 60.0
_COMMANDS = {
    "scheduler": "adjoin.runtime.member scheduler",
    "worker": "adjoin.runtime.member worker",
    "host": "adjoin.runtime.host",
}
_SERVING = re.compile(r"^serving at (\S+)$", re.MULTILINE)


class Service:
    """`adjoin serve` with an embedded cluster, killed and started again.

    ``wrapper`` is a command that starts it, such as one that sets something up before.
    """

    def __init__(
        self, home: Path, url: str = "", model: str = "fake:", wrapper: Sequence[str] = ()
    ) -> None:
        self.home = home
        self.wrapper = wrapper
        self.model = model
        self.database = url
        self.starts = 0
        self._environment = os.environ | {
            "ADJOIN_HOME": str(home),
            "ADJOIN_DATABASE_URL": url,
            "ADJOIN_ALLOWED_MODULES": '["durable_flows"]',
            "ADJOIN_ALLOWED_MODELS": '["fake:"]',
            "ADJOIN_TENANT_RUNS": "4096",
            "ADJOIN_INLINE_BYTES": "65536",
            "ADJOIN_DRAIN_TIMEOUT_S": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        }
        settings = Settings(home=home, database_url=SecretStr(url))
        database: Database = open_database(database_url(settings))
        self.key = KeyStore(database).create(scopes=("invoke", "deploy", "observe"))[1]
        database.close()
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        self.starts += 1
        path = self.home / f"serve-{self.starts}.log"
        with path.open("w") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, sys.executable, "-m", "adjoin.cli", "serve", "--port", "0"],
                env=self._environment,
                stderr=log,
                stdout=log,
            )
        deadline = time.monotonic() + _START_S
        while (found := _SERVING.search(path.read_text())) is None:
            status = self.process.poll()
            if status is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not start ({status}): see {path}")
            time.sleep(0.02)
        self.url = found[1]

    def client(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        # Without TLS: to make a context of it takes longer than the request.
        return httpx2.Client(base_url=self.url, headers=headers, timeout=20, verify=False)

    def kill(self, what: str) -> None:
        """SIGKILL: to the gateway alone, the scheduler, a worker, a host, or all there are."""
        assert self.process is not None
        if what in ("gateway", "all"):
            found = self._processes("adjoin") if what == "all" else []
            self.process.send_signal(signal.SIGKILL)
            for each in found:
                _kill(each)
            self.process.wait()
            return
        deadline = time.monotonic() + _START_S
        while not (found := self._processes(_COMMANDS[what])):  # one may be starting just now
            if time.monotonic() > deadline:
                raise RuntimeError(f"there is no {what} to kill")
            time.sleep(0.02)
        _kill(found[0])

    def _processes(self, command: str) -> list[psutil.Process]:
        """Those of this service, also the ones that outlive it, by what their command contains."""
        return [
            each
            for each in psutil.process_iter()
            if command in " ".join(_of(each.cmdline)) and self._is_ours(each)
        ]

    def _is_ours(self, process: psutil.Process) -> bool:
        return dict(_of(process.environ)).get("ADJOIN_HOME") == str(self.home)

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self) -> None:
        if self.process is not None and self.lives:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(40)
                return
            self.process.kill()


def _of(question: Callable[[], Any]) -> Any:
    """The answer about a process, empty when it has gone."""
    try:
        return question()
    except psutil.Error:
        return ()


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


class Storm:
    """Requests and kills, with their history."""

    def __init__(self, service: Service, seed: int, runs: int, gone: bool = True) -> None:
        self.service = service
        self.rng = random.Random(seed)
        self.history = History()
        self.used: dict[str, dict[str, int]] = {}
        self.ledger: list[str] = []
        self.log = service.home / "executions.log"
        self.go = service.home / "go"
        self._runs = runs
        self._sent = 0
        if gone:
            self.go.touch()

    def deploy(self) -> None:
        with self.service.client() as client:
            text = TEXT.replace("fake:", self.service.model)
            client.put("/api/v1/workflows/steps", content=text).raise_for_status()

    def send(self, number: int) -> None:
        """One asynchronous run under the key of its number."""
        body = {"number": number, "log": str(self.log), "path": str(self.go), "seconds": 0.05}
        call = self.history.invoke(f"key-{number}", oracle(number))
        headers = {"Prefer": "respond-async", "Idempotency-Key": call.key}
        try:
            with self.service.client() as client:
                answer = client.post("/api/v1/workflows/steps/invoke", json=body, headers=headers)
        except httpx2.HTTPError:
            self.history.close(call, "unknown")
            return
        if answer.status_code == 202:
            self.history.close(call, "ok", answer.json()["id"])
        else:
            self.history.close(call, "failed", answer=answer.text)

    def send_all(self) -> list[threading.Thread]:
        numbers = list(range(self._sent, self._sent + self._runs))
        again = [self.rng.randrange(self._sent) for _ in range(3)] if self._sent else []
        self._sent += self._runs
        threads = [
            threading.Thread(target=self._send_some, args=(numbers[i::4] + again,))
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _send_some(self, numbers: list[int]) -> None:
        for number in numbers:
            self.send(number)

    def round(self, what: str, longest_s: float) -> None:
        threads = self.send_all()
        time.sleep(self.rng.uniform(0, longest_s))  # the moment of the kill, not a wait
        self.service.kill(what)
        for thread in threads:
            thread.join()
        if not self.service.lives:
            self.service.start()

    def settle(self, timeout_s: float = 300.0) -> None:
        """Ask for every run that was accepted, and send again what nobody knows about."""
        for call in [c for c in self.history.calls if c.outcome == "unknown"]:
            self.send(int(call.key.removeprefix("key-")))
        runs = sorted({call.run for call in self.history.calls if call.run})
        deadline = time.monotonic() + timeout_s
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda run: self._wait(run, deadline), runs))
        self._check_ledger()

    def _wait(self, run: str, deadline: float) -> None:
        with self.service.client() as client:
            while time.monotonic() < deadline:
                answer = client.get(f"/api/v1/runs/{run}")
                if answer.status_code == 200:
                    found = answer.json()
                    self.history.saw(run, found["state"], found.get("outputs", {}).get("result"))
                    if found["state"] in ENDS:
                        self.used[run] = found["usage"]
                        self._check_events(client, run)
                        return
                time.sleep(0.05)

    def _check_ledger(self) -> None:
        """P4: what is billed is what the runs say that they used, to the token."""
        with self.service.client() as client:
            lines = client.get("/api/v1/usage").raise_for_status().json()["usage"]
        for kind in ("prompt", "generated"):
            told = sum(usage[kind] for usage in self.used.values())
            billed = sum(line["billed"][kind] for line in lines)
            left = sum(line["open"][kind] for line in lines)
            if (told, 0) != (billed, left):
                self.ledger.append(f"{kind}: runs {told}, billed {billed}, open {left}")

    def _check_events(self, client: httpx2.Client, run: str) -> None:
        text = client.get(f"/api/v1/runs/{run}/events").text
        events = []
        for block in filter(None, text.split("\n\n")):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            events.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
        for wrong in events_are_right(events):
            self.history.seen.setdefault(run, []).append(f"events: {wrong}")


def storm(
    home: Path,
    *,
    rounds: int,
    runs: int,
    seed: int,
    what: list[str],
    url: str = "",
    model: str = "fake:",
    longest_s: float = 1.5,
) -> tuple[Storm, list[str]]:
    """Play it; returns it with what went wrong."""
    service = Service(home, url, model)
    service.start()
    try:
        played = Storm(service, seed, runs)
        played.deploy()
        for number in range(rounds):
            played.round(what[number % len(what)], longest_s)
            if (number + 1) % 20 == 0:
                print(f"{number + 1} of {rounds} kills", file=sys.stderr, flush=True)
        played.settle(300.0 + rounds)
    finally:
        service.end()
    return played, [*played.history.problems(), *played.ledger]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=50, help="new ones each round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--what", default="gateway,scheduler,all")
    parser.add_argument("--url", default="", help="of PostgreSQL; SQLite without")
    parser.add_argument(
        "--longest", type=float, default=1.5, help="seconds until the kill, at most"
    )
    parser.add_argument("--model", default="fake:", help="what generates")
    parser.add_argument("--models", type=Path, help="the folder of a store that has it")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="adjoin-storm-"))
    began = time.monotonic()
    if given.models is not None:
        (home / "models").symlink_to(given.models.absolute())
    played, problems = storm(
        home,
        model=given.model,
        rounds=given.rounds,
        runs=given.runs,
        seed=given.seed,
        what=given.what.split(","),
        url=given.url,
        longest_s=given.longest,
    )
    calls = played.history.calls
    outcomes = {name: sum(c.outcome == name for c in calls) for name in ("ok", "failed", "unknown")}
    ended = {call.run for call in calls if call.run}
    executed = len(played.log.read_text().splitlines()) if played.log.exists() else 0
    print(
        f"{given.rounds} kills, {played.service.starts} starts, {time.monotonic() - began:.0f} s; "
        f"calls {outcomes}; {len(ended)} runs, {executed} executions of 3 stages each; in {home}"
    )
    for problem in problems[:20]:
        print("BROKEN:", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
