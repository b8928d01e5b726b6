"""The compute threads of a replica: they spin while they have the cores, and sleep while not.

:mod:`adjoin.runtime.policies.spinning` decides. Only Intel's OpenMP, which comes with vLLM on x86,
lets a process change its mind; with any other the threads always sleep.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from adjoin.runtime.policies.spinning import patience

_LIBRARY = "libiomp5.so"
_TASKS = Path("/proc/self/task")
#: Seconds between two looks: reading the kernel's counts takes a quarter of a millisecond.
_EVERY_S = 0.25


def variables(threads: int) -> dict[str, str]:
    """The environment of a process that will compute with so many threads."""
    found = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    library = _library()
    if library is not None:
        # Before torch's own, whose threads cannot be told anything once they run.
        before = os.environ.get("LD_PRELOAD")
        found["LD_PRELOAD"] = f"{library}:{before}" if before else str(library)
        # Sleeping threads sleep, instead of waiting in a light sleep that keeps the core.
        found["KMP_TPAUSE"] = "0"
    return found


def _library() -> Path | None:
    try:
        files = metadata.files("intel-openmp") or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())).resolve() for file in files if file.name == _LIBRARY)
    return next((path for path in found if path.is_file()), None)


class ComputeThreads:
    """Those of this process. To be used on the thread that begins the parallel regions."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._patience_ms = 0
        self._set = _setter()
        self._next = time.monotonic() + _EVERY_S
        self._ran, self._waited = _times()

    def look(self) -> None:
        """Adapt to what happened since the last look; does nothing if that was just now."""
        if self._set is None or time.monotonic() < self._next:
            return
        ran, waited = _times()
        wanted = patience(self._patience_ms, waited - self._waited, ran - self._ran, self._threads)
        if wanted != self._patience_ms:
            self._set(wanted)
            self._patience_ms = wanted
        self._ran, self._waited = ran, waited
        self._next = time.monotonic() + _EVERY_S


def _setter() -> Callable[[int], object] | None:
    """What tells the threads how many milliseconds to spin."""
    try:
        return ctypes.CDLL(None).kmp_set_blocktime
    except AttributeError:
        return None


def _times() -> tuple[float, float]:
    """Seconds that this process's threads ran, and that they waited for a core to run on."""
    ran = waited = 0
    for task in _TASKS.iterdir():
        try:
            first, second, _ = (task / "schedstat").read_text().split()
        except (OSError, ValueError):
            continue  # it has just ended, or this kernel does not count
        ran += int(first)
        waited += int(second)
    return ran / 1e9, waited / 1e9
