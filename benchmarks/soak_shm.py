"""Values of 1 MB between two workers, over and over: some runs cancelled, some workers killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import adjoin

_BYTES = 2**20
_CANCEL_EVERY, _KILL_EVERY = 7, 100


@adjoin.function
def whose(context: adjoin.StageContext, collection: str) -> int:
    return os.getpid()


@adjoin.function
def make(context: adjoin.StageContext, n: int, collection: str) -> np.ndarray[Any, Any]:
    array = adjoin.empty(_BYTES, np.uint8) if n % 2 else np.empty(_BYTES, np.uint8)
    array[:] = n % 251
    return array


@adjoin.function
def total(context: adjoin.StageContext, array: np.ndarray[Any, Any], collection: str) -> int:
    return int(array.sum())


def at(place: str) -> Any:
    @adjoin.workflow
    def flow():  # type: ignore[no-untyped-def]
        return whose(collection=place)

    return flow


def between(makes: str, uses: str) -> Any:
    @adjoin.workflow
    def flow(n: int):  # type: ignore[no-untyped-def]
        return total(make(n, collection=makes), collection=uses)

    return flow


def workers(runtime: adjoin.Runtime) -> list[int]:
    """The processes of both workers, once there are two that are alive."""
    while True:
        try:
            pids = [worker["pid"] for worker in runtime.status()["workers"]]
        except adjoin.TransportError:  # the one that was asked has just been killed
            continue
        if len(pids) == 2 and all(psutil.pid_exists(pid) for pid in pids):
            return pids
        time.sleep(0.05)


def far_apart(runtime: adjoin.Runtime) -> tuple[str, str]:
    """Names of two collections that belong to different workers; they need not exist."""
    workers(runtime)
    homes: dict[int, str] = {}
    for n in range(64):
        homes.setdefault(runtime.run(at(f"place-{n}")), f"place-{n}")
    first, second = homes.values()
    return first, second


def hop(runtime: adjoin.Runtime, flow: Any, n: int) -> None:
    """One run; every seventh is cancelled, every hundredth loses a worker in the middle."""
    handle = runtime.submit(flow, n=n)
    if n % _KILL_EVERY == _KILL_EVERY - 1:
        os.kill(workers(runtime)[n // _KILL_EVERY % 2], signal.SIGKILL)
        handle.result(60)
        workers(runtime)
    elif n % _CANCEL_EVERY == 0:
        handle.cancel()
    elif (found := handle.result(60)) != n % 251 * _BYTES:
        raise ValueError(f"run {n}: the sum is {found}")


def slab_descriptors(pids: list[int]) -> int:
    """Descriptors of shared memory in these processes."""
    count = 0
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                count += fd.readlink().name.startswith("memfd:adjoin")
            except FileNotFoundError:  # closed meanwhile
                continue
    return count
