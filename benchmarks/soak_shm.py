"""Does anything grow when values go by shared memory? Values of 1 MB between workers, many runs.

Of all runs one in seven is cancelled at a random moment. In one of ``--kill-every`` the third
worker is killed while it holds the value or reads it; the other two live from the first run to the
last, so that what they leak shows as a slope: of a line through the samples of the second half.
Memory is the anonymous memory of a process, which leaves out the slabs; these are counted.

    python -m benchmarks.soak_shm [--runs 10000] [--kill-every 200] [--seed 1]
"""

from __future__ import annotations

import functools
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from distributed import Client, Worker

import adjoin
from adjoin.runtime.paths import agents_directory
from adjoin.runtime.policies.topology import Worker as Place
from adjoin.runtime.policies.topology import owner_of
from adjoin.types import RunCompleted, StageCompleted, StageStarted
from benchmarks.report import arguments, report
from benchmarks.soak import slope

_BYTES = 2**20
_CANCEL_EVERY = 7
#: Longest wait before a run is cancelled, in seconds: about what a run takes.
_CANCEL_WITHIN = 0.008
_NAMES = ("worker-0", "worker-1", "worker-2")
_MORTAL = "worker-2"


@adjoin.function
def make(context: adjoin.StageContext, n: int, collection: str) -> np.ndarray[Any, Any]:
    array = adjoin.empty(_BYTES, np.uint8) if n % 2 else np.empty(_BYTES, np.uint8)
    array[:] = n % 251
    return array


@adjoin.function
def total(
    context: adjoin.StageContext, array: np.ndarray[Any, Any], wait: float, collection: str
) -> int:
    time.sleep(wait)
    return int(array.sum())


@functools.cache
def between(makes: str, uses: str) -> Any:
    """The workflow that makes a value on one worker and uses it on another."""

    def place(worker: str) -> str:
        every = [Place(name, name, "host") for name in _NAMES]
        names = (f"place-{n}" for n in range(10_000))
        return next(name for name in names if owner_of(name, every).name == worker)

    def others(worker: str, other: str) -> list[str]:
        """Not where the other stage is; and stages of immortal workers stay where they are."""
        return [other] if worker == _MORTAL else [name for name in _NAMES if name != worker]

    @adjoin.workflow
    def flow(n: int, wait: float = 0.0):  # type: ignore[no-untyped-def]
        array = make.options(avoid=others(makes, uses))(n, collection=place(makes))
        return total.options(avoid=others(uses, makes))(array, wait, collection=place(uses))

    return flow


class Soak:
    """Runs, one after another, and what became of them."""

    def __init__(self, runtime: adjoin.Runtime, kill_every: int, seed: int) -> None:
        self.runtime = runtime
        self.counts: Counter[str] = Counter()
        self._kill_every = kill_every
        self._random = random.Random(seed)

    def run(self, n: int) -> None:
        if n % self._kill_every == self._kill_every - 1:
            self._kill(n)
            return
        makes, uses = _NAMES[:2] if n // 2 % 2 else _NAMES[1::-1]
        handle = self.runtime.submit(between(makes, uses), n=n)
        if n % _CANCEL_EVERY == 0:
            time.sleep(self._random.uniform(0, _CANCEL_WITHIN))
            handle.cancel()
            self.counts["cancelled" if _output(handle) is None else "over_when_cancelled"] += 1
        else:
            self._check(n, handle.result(60))

    def _kill(self, n: int) -> None:
        """Kill a worker: in turn the one that uses a value, and the one that holds it."""
        holds = n // self._kill_every % 2 == 1
        makes, uses = (_MORTAL, _NAMES[0]) if holds else (_NAMES[0], _MORTAL)
        handle = self.runtime.submit(between(makes, uses), n=n, wait=0.1)
        for event in handle.events():
            match event.body:
                case StageCompleted(worker=worker) if holds and worker == _MORTAL:
                    self._end_mortal()
                case StageStarted(worker=worker) if not holds and worker == _MORTAL:
                    self._end_mortal()
        self._check(n, handle.result(60))

    def _end_mortal(self) -> None:
        if (pid := workers(self.runtime).get(_MORTAL)) is not None:
            os.kill(pid, signal.SIGKILL)
            self.counts["killed"] += 1

    def _check(self, n: int, found: int) -> None:
        if found != n % 251 * _BYTES:
            raise ValueError(f"run {n}: the sum is {found}")
        self.counts["completed"] += 1


def _output(handle: adjoin.RunHandle) -> Any:
    last = list(handle.events())[-1].body
    return last.outputs["output"] if isinstance(last, RunCompleted) else None


def workers(runtime: adjoin.Runtime) -> dict[str, int]:
    """Processes of the workers that are there, by name."""
    while True:
        try:
            return {worker["name"]: worker["pid"] for worker in runtime.status()["workers"]}
        except adjoin.TransportError:  # the one that was asked has just been killed
            time.sleep(0.05)


def processes(runtime: adjoin.Runtime) -> dict[str, int]:
    """Those that live from the first run to the last."""
    found = workers(runtime)
    (host,) = runtime.status()["hosts"].values()
    return {
        "driver": os.getpid(),
        "host": host["pid"],
        **{name: found[name] for name in _NAMES if name != _MORTAL},
    }


def footprint(pids: dict[str, int]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, pid in pids.items():
        found[f"{name}_memory_bytes"] = anonymous(pid)
        found[f"{name}_descriptors"] = psutil.Process(pid).num_fds()
        found[f"{name}_threads"] = psutil.Process(pid).num_threads()
    return found


def anonymous(pid: int) -> int:
    """Bytes of anonymous memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise ValueError("the kernel tells no anonymous memory")


def held(dask_worker: Worker) -> dict[str, int]:
    """What a worker holds for runs that are over: nothing, if all is well."""
    agent = dask_worker.plugins["adjoin"]._agent
    agent.lender.pool.settle()
    return {
        "segments": sum(not segment._ended for segment in agent._segments),
        "slabs_held": len(agent.lender.pool.taken),
        "values_placed": len(agent.lender._placed),
    }


def left(runtime: adjoin.Runtime) -> dict[str, int]:
    """Segments, and slabs that are held, on all workers."""
    with Client(runtime.status()["scheduler"], set_as_default=False) as client:
        found = Counter[str]()
        for each in client.run(held).values():
            found.update(each)
    return {f"{key}_left": found[key] for key in ("segments", "slabs_held", "values_placed")}


def stale_sockets(runtime: adjoin.Runtime) -> int:
    """Sockets of agents on this machine beyond those of the workers that are there."""
    (host,) = runtime.status()["hosts"].values()
    sockets = list(agents_directory(Path(host["directory"])).glob("*.shm"))
    return len(sockets) - len(workers(runtime))


def slab_descriptors(pids: set[int]) -> int:
    """Descriptors of our shared memory in those of the processes that are still there."""
    count = 0
    for pid in pids:
        try:
            fds = list(Path(f"/proc/{pid}/fd").iterdir())
            count += sum(fd.readlink().name.startswith("memfd:adjoin") for fd in fds)
        except OSError:  # it is gone, or the descriptor is
            continue
    return count


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--kill-every", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    runs = 500 if options.quick else options.runs
    began = time.perf_counter()
    taken: dict[str, list[tuple[int, float]]] = {}
    with adjoin.Runtime(settings=adjoin.Settings.load(workers=len(_NAMES))) as runtime:
        pids = processes(runtime)
        soak = Soak(runtime, options.kill_every, options.seed)
        for n in range(runs + 1):
            if n % max(1, runs // 100) == 0:
                for key, value in footprint(pids).items():
                    taken.setdefault(key, []).append((n, value))
            if n < runs:
                soak.run(n)
        while len(workers(runtime)) < len(_NAMES):
            time.sleep(0.1)
        if processes(runtime) != pids:
            raise ValueError("a process that should have lived through all runs was replaced")
        figures = {"runs": runs, **soak.counts, **left(runtime)}
        figures["sockets_left"] = stale_sockets(runtime)
        all_pids = {child.pid for child in psutil.Process().children(recursive=True)}
        all_pids |= {*pids.values(), *workers(runtime).values()}
    figures["slab_descriptors_left"] = slab_descriptors(all_pids)
    figures |= {f"{key}_per_run": round(slope(found), 4) for key, found in taken.items()}
    figures["seconds"] = round(time.perf_counter() - began, 1)
    report("soak_shm", figures, file=options.json)


if __name__ == "__main__":
    main()
