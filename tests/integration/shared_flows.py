"""A value that has to go from one worker to the other: each stage runs where its collection is."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

import adjoin


@adjoin.function
def whose(context: adjoin.StageContext, collection: str) -> int:
    return os.getpid()


@adjoin.function
def make(context: adjoin.StageContext, n: int, shared: bool, collection: str) -> dict[str, Any]:
    array = adjoin.empty(n, np.uint8) if shared else np.empty(n, np.uint8)
    array[:] = 7
    return {"array": array, "pid": os.getpid()}


@adjoin.function
def use(
    context: adjoin.StageContext, value: dict[str, Any], wait: float, collection: str
) -> dict[str, Any]:
    array = value["array"]
    time.sleep(wait)
    return {
        "sum": int(array.sum()),
        "mapped": mapped(array),
        "writable": array.flags.writeable,
        "pids": [value["pid"], os.getpid()],
    }


def mapped(array: np.ndarray[Any, Any]) -> str:
    """The file that an array's memory is mapped from, with its rights; empty for other memory."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end and "memfd" in line:
            return f"{line.split()[5]} {line.split()[1]}"
    return ""


def hop(makes: str, uses: str) -> Any:
    """The workflow that makes a value beside one collection and uses it beside another."""

    @adjoin.workflow
    def flow(n: int, shared: bool = False, wait: float = 0.0):  # type: ignore[no-untyped-def]
        return use(make(n, shared, collection=makes), wait, collection=uses)

    return flow


def far_apart(runtime: adjoin.Runtime) -> tuple[str, str]:
    """The names of two collections (which need not exist) that belong to different workers."""
    while len(runtime.status()["workers"]) < 2:  # what a place's home is depends on who is there
        time.sleep(0.01)
    homes: dict[int, str] = {}
    for n in range(64):
        name = f"place-{n}"
        homes.setdefault(runtime.run(_at(name)), name)
        if len(homes) == 2:
            first, second = homes.values()
            return first, second
    raise RuntimeError("all collections belong to one worker")


def _at(name: str) -> Any:
    @adjoin.workflow
    def flow():  # type: ignore[no-untyped-def]
        return whose(collection=name)

    return flow
