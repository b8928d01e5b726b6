"""How long it takes until the work goes on, when a process is killed or stopped.

Each row is the median over repeats of the seconds from the signal until

* a run that was under way is begun again elsewhere (`worker …`, `replica …`, `host …`), or
* a new run is answered and the scheduler has all its workers again (`scheduler …`, `all …`), or
* a worker is there again (`nanny …`).

The engine is the scripted one, so that loading a model takes nothing. The dead link is between two
network namespaces, where the system allows them.

    python -m benchmarks.recovery [--repeats 5] [--json FILE] [--quick]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import adjoin
from adjoin import Runtime, Settings
from adjoin import functions as fn
from adjoin.dag import ModelSpec
from adjoin.types import RunPlanned, StageStarted, Tokens, Used
from benchmarks.report import arguments, report

_LIMIT_S = 60.0
_TWO_HOSTS = Path(__file__).parents[1] / "tests" / "integration" / "two_hosts.py"
_NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--uts"]
#: Seconds that are promised, by row.
PROMISED = {
    "worker killed": 2.0,
    "worker stopped": 2.0,
    "scheduler killed": 15.0,
    "scheduler stopped": 15.0,
    "link down": 10.0,
}


@adjoin.function
async def wait(path: str) -> str:
    while not Path(path).exists():
        await asyncio.sleep(0.01)
    return path


@adjoin.workflow
def waiting(path: str) -> Any:
    return wait(path)


@adjoin.workflow(
    models={"slow": ModelSpec(source="fake:", args={"interval_s": 0.02, "words": 200})}
)
def generated(question: str) -> Any:
    return fn.generate(question, model="slow")


Scenario = Callable[[Runtime, Path, int], float]


def _worker(runtime: Runtime, folder: Path, number: int) -> float:
    """Of a run in a stage, until the stage is begun on another worker."""
    gate = folder / f"gate-{time.monotonic_ns()}"
    handle = runtime.submit(waiting, path=str(gate))
    worker = began = ""
    for event in handle.events():
        if isinstance(event.body, RunPlanned):
            (worker,) = set(event.body.placement.values())
        if isinstance(event.body, StageStarted):
            began = worker
            break
    pid = next(w.pid for w in runtime.driver.cluster.topology.workers if w.name == began)
    at = time.monotonic()
    os.kill(pid, number)
    for event in handle.events():
        if isinstance(event.body, StageStarted) and event.attempt > 1:
            break
    seconds = time.monotonic() - at
    gate.touch()
    handle.result(_LIMIT_S)
    return seconds


def _model(runtime: Runtime, number: int, pid: Callable[[Runtime], int]) -> float:
    """Of a generation under way, until the first token of its next attempt."""
    handle = runtime.submit(generated, question="a b c")
    for event in handle.events():
        if isinstance(event.body, Tokens):
            break
    victim = pid(runtime)
    at = time.monotonic()
    os.kill(victim, number)
    for event in handle.events():
        if isinstance(event.body, Tokens) and event.attempt > 1:
            return time.monotonic() - at
        if isinstance(event.body, Used) and event.attempt > 1:
            raise RuntimeError("it ended without a token")
    raise RuntimeError("it was not begun again")


def _host(runtime: Runtime) -> dict[str, Any]:
    (found,) = runtime.status()["hosts"].values()
    return dict(found)


def _replica_pid(runtime: Runtime) -> int:
    return next(int(r["pid"]) for r in _host(runtime)["replicas"] if r["state"] == "ready")


def _host_pid(runtime: Runtime) -> int:
    return int(_host(runtime)["pid"])


def _service(runtime: Runtime, folder: Path, number: int, victims: list[int]) -> float:
    """Until a new run is answered, and the scheduler has all workers again."""
    gate = folder / "open"
    gate.touch()
    at = time.monotonic()
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    while (scheduler := runtime.driver.cluster.pids["scheduler"]) in victims:
        time.sleep(0.01)
    runtime.run(waiting, path=str(gate))
    while _registered(runtime) < runtime.settings.workers:
        if time.monotonic() - at > _LIMIT_S:
            raise RuntimeError(f"the scheduler {scheduler} has not got its workers back")
        time.sleep(0.01)
    return time.monotonic() - at


def _registered(runtime: Runtime) -> int:
    async def ask() -> int:
        try:
            async with asyncio.timeout(1):
                return len(await runtime.driver.cluster._addresses())
        except (OSError, TimeoutError):
            return 0

    return runtime._loop.call(ask())


def _everything(runtime: Runtime) -> list[int]:
    cluster = runtime.driver.cluster
    return [*cluster.pids.values(), *(worker.pid for worker in cluster.topology.workers)]


def _scheduler(runtime: Runtime, folder: Path, number: int) -> float:
    return _service(runtime, folder, number, [runtime.driver.cluster.pids["scheduler"]])


def _all(runtime: Runtime, folder: Path, number: int) -> float:
    return _service(runtime, folder, number, _everything(runtime))


def _workers(runtime: Runtime, folder: Path, number: int) -> float:
    victims = [worker.pid for worker in runtime.driver.cluster.topology.workers]
    gate = folder / "open"
    gate.touch()
    at = time.monotonic()
    for pid in victims:
        os.kill(pid, number)
    runtime.run(waiting, path=str(gate))
    return time.monotonic() - at


def _nanny(runtime: Runtime, folder: Path, number: int) -> float:
    """Until the worker has another process."""
    cluster = runtime.driver.cluster
    (worker, *_) = cluster.topology.workers
    os.kill(cluster.pids[worker.name], number)
    at = time.monotonic()
    os.kill(worker.pid, signal.SIGKILL)
    while (found := cluster.topology.worker(worker.name)) is None or found.pid == worker.pid:
        if time.monotonic() - at > _LIMIT_S:
            raise RuntimeError("the worker has not come back")
        time.sleep(0.01)
    return time.monotonic() - at


SCENARIOS: dict[str, tuple[Scenario, int]] = {
    "worker killed": (_worker, signal.SIGKILL),
    "worker stopped": (_worker, signal.SIGSTOP),
    "all workers killed": (_workers, signal.SIGKILL),
    "scheduler killed": (_scheduler, signal.SIGKILL),
    "scheduler stopped": (_scheduler, signal.SIGSTOP),
    "scheduler, nannies and workers killed": (_all, signal.SIGKILL),
    "replica killed": (lambda r, _, n: _model(r, n, _replica_pid), signal.SIGKILL),
    "replica stopped": (lambda r, _, n: _model(r, n, _replica_pid), signal.SIGSTOP),
    "host killed": (lambda r, _, n: _model(r, n, _host_pid), signal.SIGKILL),
    "host stopped": (lambda r, _, n: _model(r, n, _host_pid), signal.SIGSTOP),
    "nanny stopped, its worker killed": (_nanny, signal.SIGSTOP),
}


def measure(repeats: int, only: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, (scenario, number) in SCENARIOS.items():
        for _ in range(repeats if only in name else 0):
            with TemporaryDirectory() as folder:
                settings = Settings(home=Path(folder), host_linger_s=1.0)
                with Runtime(settings=settings) as runtime:
                    runtime.run(generated, question="warm")
                    seconds = scenario(runtime, Path(folder), number)
                found.setdefault(name, []).append(seconds)
    return found


def dead_link() -> float | None:
    """Until a run on the far host is begun again on the near one; None where it cannot be tried."""
    done = subprocess.run(
        [*_NAMESPACES, sys.executable, str(_TWO_HOSTS), "link"],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(part or str(Path.cwd()) for part in sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return float(json.loads(done.stdout)["seconds"]) if done.returncode == 0 else None


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose names contain this")
    options = parser.parse_args()
    found = measure(1 if options.quick else options.repeats, options.only)
    if options.only in "link down" and (link := dead_link()) is not None:
        found["link down"] = [link]
    rows = [
        {
            "fault": name,
            "median s": round(statistics.median(times), 2),
            "longest s": round(max(times), 2),
            "repeats": len(times),
            "promised s": PROMISED.get(name, ""),
        }
        for name, times in found.items()
    ]
    figures = {f"{name}, median s": statistics.median(times) for name, times in found.items()}
    load = {"load": round(os.getloadavg()[0], 1)}
    report("recovery", {**figures, **load}, rows=rows, file=options.json)


if __name__ == "__main__":
    main()
