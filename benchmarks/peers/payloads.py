"""What the first of the four stages makes, and how the peers' programs take time."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
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


def rounds(kind: str) -> int:
    return 40 if kind == "16mb" else 200


def timed(run: Callable[[str], Any]) -> dict[str, float]:
    """Median milliseconds of a run for each payload."""
    found = {}
    for kind in KINDS:
        for _ in range(20):
            run(kind)
        times = []
        for _ in range(rounds(kind)):
            began = time.perf_counter()
            run(kind)
            times.append(time.perf_counter() - began)
        found[kind] = statistics.median(times) * 1e3
    return found


async def timed_async(run: Callable[[str], Awaitable[Any]]) -> dict[str, float]:
    found = {}
    for kind in KINDS:
        for _ in range(20):
            await run(kind)
        times = []
        for _ in range(rounds(kind)):
            began = time.perf_counter()
            await run(kind)
            times.append(time.perf_counter() - began)
        found[kind] = statistics.median(times) * 1e3
    return found


def tell(found: dict[str, float]) -> None:
    json.dump(found, sys.stdout)
