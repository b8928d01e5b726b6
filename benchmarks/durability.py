"""What it takes to be durable: the same workflow of four stages that do nothing, plain and durable.

    python -m benchmarks.durability [--runs 300] [--url postgresql://…]

In one process, without HTTP, plain and durable runs in turns: milliseconds of one run after the
other, runs a second of sixteen at once, and what the disk takes for one fsync. A durable run of a
workflow that generates takes as many milliseconds more, whatever its model takes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path

from pydantic import SecretStr

from adjoin import Settings
from adjoin.runtime.gateway.asks import Ask
from adjoin.runtime.gateway.idempotency import Durability
from adjoin.runtime.gateway.service import Service
from benchmarks.serving_flow import chain

_REPEATS = 5
_AT_ONCE = 16


async def _one(service: Service, durable: bool) -> float:
    deployment = service.deployments.find("default", "chain")
    how = None
    if durable:
        key = uuid.uuid4().hex
        how = Durability(key, hashlib.sha256(key.encode()).digest())
    began = time.perf_counter()
    record = await service.begin(deployment, {"text": "a"}, Ask(), how)
    await record.outcome()
    return (time.perf_counter() - began) * 1e3


async def _alone(service: Service, durable: bool, runs: int) -> list[float]:
    return [await _one(service, durable) for _ in range(runs)]


async def _together(service: Service, durable: bool, runs: int) -> float:
    async def some() -> None:
        for _ in range(runs // _AT_ONCE + 1):
            await _one(service, durable)

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
    return (runs // _AT_ONCE + 1) * _AT_ONCE / (time.perf_counter() - began)


def _fsync_ms(folder: Path) -> float:
    found = []
    with (folder / "probe").open("wb") as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            found.append((time.perf_counter() - began) * 1e3)
    return statistics.median(found)


async def measure(home: Path, url: str, runs: int) -> None:
    service = Service(Settings(home=home, database_url=SecretStr(url)))
    await service.start(None, [])
    try:
        service.deployments.deploy("default", chain.graph)
        for durable in (False, True):
            await _alone(service, durable, 50)  # costs are learned, plans kept
        alone: dict[bool, list[float]] = {False: [], True: []}
        together: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(_REPEATS):
            for durable in (False, True):
                alone[durable] += await _alone(service, durable, runs // _REPEATS)
                together[durable].append(await _together(service, durable, runs))
    finally:
        await service.stop()
    print(f"one fsync of this disk: {_fsync_ms(home):.2f} ms")
    print("          p50 ms   p95 ms   runs/s of 16 at once")
    for durable, name in ((False, "plain"), (True, "durable")):
        *_, p95 = statistics.quantiles(alone[durable], n=20)
        rate = statistics.median(together[durable])
        print(f"{name:8}  {statistics.median(alone[durable]):6.2f}   {p95:6.2f}   {rate:6.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--url", default="", help="of PostgreSQL; SQLite without")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(measure(Path(home), given.url, given.runs))


if __name__ == "__main__":
    main()
