"""What the first of the four stages makes, and how the peers' programs take time."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np

WORDS = "The mill stands by the river, and the keeper counts the boats that come by each day. " * 6


def payload(kind: str) -> Any:
    """``small``: 384 floats; ``rag``: 50 documents with 50 x 384 floats; ``16mb``: 4 M floats."""
    if kind == "small":
        return np.ones(384, dtype=np.float32)
    if kind == "rag":
        documents = [{"id": str(n), "text": WORDS, "score": 0.5} for n in range(50)]
        return {"documents": documents, "vectors": np.ones((50, 384), dtype=np.float32)}
    return np.ones(4_000_000, dtype=np.float32)


KINDS = ("small", "rag", "16mb")


def rounds(kind: str, quick: bool) -> tuple[int, int]:
    """How many runs come before the measured ones, and how many are measured."""
    if quick:
        return (3, 7) if kind == "16mb" else (10, 50)
    return (20, 40) if kind == "16mb" else (20, 200)


def timed(run: Callable[[str], Any], *, quick: bool = False) -> dict[str, float]:
    """Median milliseconds of a run for each payload."""
    found = {}
    for kind in KINDS:
        unmeasured, measured = rounds(kind, quick)
        for _ in range(unmeasured):
            run(kind)
        times = []
        for _ in range(measured):
            began = time.perf_counter()
            run(kind)
            times.append(time.perf_counter() - began)
        found[kind] = statistics.median(times) * 1e3
    return found


async def timed_async(
    run: Callable[[str], Awaitable[Any]], *, quick: bool = False
) -> dict[str, float]:
    found = {}
    for kind in KINDS:
        unmeasured, measured = rounds(kind, quick)
        for _ in range(unmeasured):
            await run(kind)
        times = []
        for _ in range(measured):
            began = time.perf_counter()
            await run(kind)
            times.append(time.perf_counter() - began)
        found[kind] = statistics.median(times) * 1e3
    return found


def is_quick() -> bool:
    """Whether the program was asked to end soon."""
    return "--quick" in sys.argv


def tell(found: Mapping[str, float], package: str, settings: Mapping[str, Any]) -> None:
    """Print what was measured, with what: the package's version, and how it was set up."""
    content = {
        "package": package,
        "version": importlib.metadata.version(package),
        "python": platform.python_version(),
        "settings": dict(settings),
        "figures": dict(found),
    }
    json.dump(content, sys.stdout)
