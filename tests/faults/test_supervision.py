"""kill -9 and SIGSTOP of the processes of a cluster: what goes on, and what takes their place."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flows
import pytest

from adjoin import Runtime, Settings, StageError
from adjoin.errors import TransportError
from adjoin.runtime.cluster import Cluster
from adjoin.types import RunPlanned, StageCompleted, StageStarted, Tokens, WorkerLost

LIMIT_S = 30.0


def until(true: Callable[[], bool], limit: float = LIMIT_S) -> float:
    """Look until it is true; returns the seconds that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < limit
        time.sleep(0.02)
    return time.monotonic() - began


def cluster(runtime: Runtime) -> Cluster:
    return runtime.driver.cluster


def workers(runtime: Runtime) -> dict[str, int]:
    return {worker.name: worker.pid for worker in cluster(runtime).topology.workers}


def registered(runtime: Runtime) -> int:
    """Workers that the scheduler knows; 0 while there is none."""

    async def ask() -> int:
        try:
            async with asyncio.timeout(1):
                return len(await cluster(runtime)._addresses())
        except (OSError, TimeoutError):
            return 0

    return runtime._loop.call(ask())


def replica(runtime: Runtime, model: str) -> int:
    (host,) = runtime.status()["hosts"].values()
    return next(int(each["pid"]) for each in host["replicas"] if each["model"] == model)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def begun(handle: Any, kind: type = StageStarted) -> str:
    """Wait for an event of a run; returns the worker of its only stage."""
    worker = ""
    for event in handle.events():
        if isinstance(event.body, RunPlanned):
            (worker,) = set(event.body.placement.values())
        if isinstance(event.body, kind):
            return worker
    raise AssertionError("the run ended")


def lost(handle: Any) -> int:
    return sum(isinstance(event.body, WorkerLost) for event in handle.events())


def test_the_scheduler_killed_in_a_run_disturbs_nobody(runtime: Runtime, tmp_path: Path) -> None:
    before, address = workers(runtime), cluster(runtime).address
    gate = tmp_path / "gate"
    handle = runtime.submit(flows.waiting, path=str(gate))
    begun(handle)
    kill(cluster(runtime).pids["scheduler"])
    assert runtime.run(flows.chain, text="abc")["text"] == "ABC has 3"  # while there is none
    until(lambda: registered(runtime) == 2)
    gate.touch()
    assert handle.result(LIMIT_S) == str(gate)
    assert lost(handle) == 0
    assert workers(runtime) == before
    assert cluster(runtime).address == address


def test_a_stopped_scheduler_is_replaced(runtime: Runtime) -> None:
    stopped = cluster(runtime).pids["scheduler"]
    before = workers(runtime)
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: cluster(runtime).pids["scheduler"] != stopped)
    until(lambda: registered(runtime) == 2)
    assert workers(runtime) == before


def test_replicas_outlive_all_workers_and_the_scheduler(runtime: Runtime) -> None:
    assert runtime.run(flows.answer, question="one") == "one "
    model = replica(runtime, "fast")
    before = workers(runtime)
    for pid in (cluster(runtime).pids["scheduler"], *before.values()):
        kill(pid)
    assert runtime.run(flows.answer, question="two") == "two "
    assert replica(runtime, "fast") == model
    until(lambda: len(workers(runtime)) == 2)
    assert not set(workers(runtime).values()) & set(before.values())


def test_every_process_of_the_cluster_killed_at_once_is_started_again(runtime: Runtime) -> None:
    started = cluster(runtime).pids
    for pid in (*started.values(), *workers(runtime).values()):
        with contextlib.suppress(ProcessLookupError):  # a worker goes with its nanny
            kill(pid)
    assert runtime.run(flows.chain, text="abc")["text"] == "ABC has 3"
    until(lambda: not set(cluster(runtime).pids.values()) & set(started.values()))
    until(lambda: registered(runtime) == 2)


def test_a_stopped_worker_is_routed_around_and_replaced(runtime: Runtime, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    handle = runtime.submit(flows.waiting, path=str(mark))
    frozen = begun(handle)
    pid = workers(runtime)[frozen]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: workers(runtime).get(frozen) != pid)
    mark.touch()
    assert handle.result(LIMIT_S) == str(mark)
    assert lost(handle) == 1
    until(lambda: frozen in workers(runtime))
    assert not Path(f"/proc/{pid}").exists()


def test_a_stopped_replica_costs_an_attempt(runtime: Runtime) -> None:
    handle = runtime.submit(flows.patient, question="a b c d e f g h")
    begun(handle, Tokens)
    stopped = replica(runtime, "patient")
    os.kill(stopped, signal.SIGSTOP)
    assert handle.result(LIMIT_S) == "a b c d e f g h "
    assert replica(runtime, "patient") != stopped


def test_a_stopped_host_costs_an_attempt(runtime: Runtime) -> None:
    handle = runtime.submit(flows.patient, question="a b c d e f g h")
    begun(handle, Tokens)
    (host,) = runtime.status()["hosts"].values()
    os.kill(host["pid"], signal.SIGSTOP)
    assert handle.result(LIMIT_S) == "a b c d e f g h "
    (other,) = runtime.status()["hosts"].values()
    assert other["pid"] != host["pid"]
    said = [e.attempt for e in handle.events() if isinstance(e.body, StageCompleted)]
    assert said == [2]


def test_a_stopped_nanny_is_replaced_once_its_worker_is_gone(runtime: Runtime) -> None:
    nannies, before = cluster(runtime).pids, workers(runtime)
    os.kill(nannies["worker-0"], signal.SIGSTOP)
    kill(before["worker-0"])
    seconds = until(lambda: workers(runtime).get("worker-0") not in (None, before["worker-0"]))
    assert seconds < 20  # it was not waited for as long as for one that may still be starting
    # Its worker is known a moment before the new nanny says that it is ready.
    until(lambda: cluster(runtime).pids["worker-0"] != nannies["worker-0"])
    assert workers(runtime)["worker-1"] == before["worker-1"]


def test_a_member_that_cannot_start_ends_with_whoever_started_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a scheduler that never answers
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        job = {"role": "worker", "scheduler": address, "name": "worker-0", "cluster": "none"}
        job["settings"] = Settings(home=tmp_path).model_dump_json()
        member = subprocess.Popen(
            [sys.executable, "-m", "adjoin.runtime.member", "worker-0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert member.stdin is not None
        member.stdin.write(json.dumps(job).encode() + b"\n")
        member.stdin.flush()
        try:
            silent.settimeout(LIMIT_S)
            connection, _ = silent.accept()  # it is about to start
            member.stdin.close()
            member.wait(5)  # long before it would give up the scheduler
            connection.close()
        finally:
            member.kill()
            member.wait()


def test_a_stage_that_kills_its_worker_is_given_up_after_two(runtime: Runtime) -> None:
    handle = runtime.submit(flows.dying, text="poison")
    with pytest.raises(StageError, match=r"stage 'die'.*as 2 were while it ran") as failed:
        handle.result(LIMIT_S)
    assert lost(handle) == 2
    assert failed.value.details["attempt"] == 2


def test_a_worker_that_cannot_run_is_named(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, workers=1, worker_wait_s=4, host_linger_s=1)
    with Runtime(settings=settings) as runtime:
        supervisor = cluster(runtime)._supervisor
        assert supervisor is not None
        supervisor.address = "tcp://127.0.0.1:1"  # nobody is there
        kill(cluster(runtime).pids["worker-0"])
        until(lambda: not workers(runtime))
        with pytest.raises(TransportError, match=r"no worker came.*'worker-0' ended \(SIGKILL\)"):
            runtime.run(flows.chain, text="abc")


# --- a cluster of others --------------------------------------------------------------------------


class Dask:
    """``dask scheduler`` and ``dask worker`` as somebody else runs them, on one port for good."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0")
        log = folder / "scheduler.log"
        until(lambda: "Scheduler at:" in log.read_text())
        self.address = next(w for w in log.read_text().split() if w.startswith("tcp://127"))

    def scheduler(self) -> None:
        self._start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", self._port)

    def worker(self, name: str, *options: str) -> int:
        common = ["--nthreads", "1", "--no-nanny", "--name", name]
        return self._start(name, "worker", self.address, *common, *options)

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    @property
    def _port(self) -> str:
        return self.address.rpartition(":")[2]

    def _start(self, name: str, *arguments: str) -> int:
        search = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
        with (self._folder / f"{name}.log").open("ab") as log:
            process = self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--no-dashboard"],
                env=os.environ | {"PYTHONPATH": search},
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        return process.pid


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    made = Dask(tmp_path)
    try:
        yield made
    finally:
        made.end()


def joined(dask: Dask, home: Path) -> Runtime:
    settings = Settings(home=home, host_linger_s=1.0, worker_wait_s=LIMIT_S)
    return Runtime(dask.address, settings=settings)


def test_a_worker_that_wakes_late_is_fenced_and_comes_back(dask: Dask, tmp_path: Path) -> None:
    pids = {name: dask.worker(name) for name in ("one", "two")}
    with joined(dask, tmp_path / "home") as runtime:
        until(lambda: len(workers(runtime)) == 2)
        mark = tmp_path / "mark"
        handle = runtime.submit(flows.waiting, path=str(mark))
        frozen = begun(handle)
        os.kill(pids[frozen], signal.SIGSTOP)
        until(lambda: frozen not in workers(runtime))
        mark.touch()  # both attempts can end now; the first wakes with a result
        os.kill(pids[frozen], signal.SIGCONT)
        assert handle.result(LIMIT_S) == str(mark)
        done = [e for e in handle.events() if isinstance(e.body, StageCompleted)]
        assert [event.attempt > 1 for event in done] == [True]
        until(lambda: workers(runtime) == pids)
        assert runtime.run(flows.chain, text="abc")["text"] == "ABC has 3"


def test_a_run_waits_for_a_scheduler_that_comes_back(dask: Dask, tmp_path: Path) -> None:
    dask.worker("one")
    with joined(dask, tmp_path / "home") as runtime:
        assert runtime.run(flows.chain, text="abc")["text"] == "ABC has 3"
        dask.processes["scheduler"].kill()
        dask.processes["scheduler"].wait()
        dask.processes["one"].wait(LIMIT_S)  # Dask's workers go with their scheduler
        until(lambda: not workers(runtime))
        handle = runtime.submit(flows.chain, text="abc")
        dask.scheduler()
        dask.worker("one")
        assert handle.result(LIMIT_S)["text"] == "ABC has 3"


def test_a_worker_with_the_preload_outlives_its_scheduler(dask: Dask, tmp_path: Path) -> None:
    pid = dask.worker("one", "--preload", "adjoin.runtime.agent")
    with joined(dask, tmp_path / "home") as runtime:
        until(lambda: workers(runtime) == {"one": pid})
        dask.processes["scheduler"].kill()
        dask.processes["scheduler"].wait()
        assert runtime.run(flows.chain, text="abc")["text"] == "ABC has 3"
        dask.scheduler()
        until(lambda: registered(runtime) == 1)
        assert workers(runtime) == {"one": pid}
