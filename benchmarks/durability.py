"""What it takes to be durable, and to be counted: runs plain and durable, in turns.

    python -m benchmarks.durability [--model smollm2-135m] [--url postgresql://…] [--json FILE]

In one process, without HTTP. First a workflow of four stages that do nothing: milliseconds of one
run after the other, runs a second of sixteen at once, and what the disk takes for one fsync. With
`--model`, of the store in `ADJOIN_HOME`, also a real request: a generation of 32 tokens. What of it
is the ledger's is added up from the time that processors spend on it for one plain request: the
replica's counting (as `benchmarks.ledger` times it, for the steps of one request alone), the
service's writes, and looking for new usage once a second, which service and agents share.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from pydantic import SecretStr

import adjoin
from adjoin import Settings
from adjoin import functions as fn
from adjoin.dag import ModelSpec
from adjoin.runtime.gateway.asks import Ask
from adjoin.runtime.gateway.idempotency import Durability
from adjoin.runtime.gateway.keys import DEFAULT_TENANT
from adjoin.runtime.gateway.service import Service
from benchmarks.ledger import measure as count
from benchmarks.report import arguments, report
from benchmarks.serving_flow import chain

_NAMES = {False: "plain", True: "durable"}
_TOKENS = 32
_LOOKS = 200
_REPEATS = 5
_AT_ONCE = 16
_One = Callable[[bool], Awaitable[float]]


async def _one(service: Service, name: str, inputs: Mapping[str, Any], durable: bool) -> float:
    deployment = service.deployments.find(DEFAULT_TENANT, name)
    how = None
    if durable:
        key = uuid.uuid4().hex
        how = Durability(key, hashlib.sha256(key.encode()).digest())
    began = time.perf_counter()
    record = await service.begin(deployment, inputs, Ask(), how)
    await record.outcome()
    return (time.perf_counter() - began) * 1e3


async def _alone(one: _One, durable: bool, runs: int) -> list[float]:
    return [await one(durable) for _ in range(runs)]


async def _together(one: _One, durable: bool, runs: int) -> float:
    async def some() -> None:
        for _ in range(runs // _AT_ONCE + 1):
            await one(durable)

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


async def _noop(service: Service, runs: int) -> dict[str, float]:
    """Plain and durable runs of stages that do nothing."""
    service.deployments.deploy(DEFAULT_TENANT, chain.graph)
    one = partial(_one, service, "chain", {"text": "a"})
    for durable in _NAMES:
        await _alone(one, durable, 50)  # costs are learned, plans kept
    alone: dict[bool, list[float]] = {False: [], True: []}
    together: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(_REPEATS):
        for durable in _NAMES:
            alone[durable] += await _alone(one, durable, runs // _REPEATS)
            together[durable].append(await _together(one, durable, runs))
    found = {}
    for durable, name in _NAMES.items():
        *_, p95 = statistics.quantiles(alone[durable], n=20)
        found[f"{name}_p50_ms"] = statistics.median(alone[durable])
        found[f"{name}_p95_ms"] = p95
        found[f"{name}_runs_s"] = statistics.median(together[durable])
    return found | {"durable_added_ms": found["durable_p50_ms"] - found["plain_p50_ms"]}


async def _real(service: Service, model: str, repeats: int) -> dict[str, float]:
    """Plain and durable runs of a generation, and what the ledger takes of a plain one."""

    @adjoin.workflow(models={"m": ModelSpec(source=model)})
    def says(text: str) -> Any:
        return fn.generate(text, model="m", max_tokens=_TOKENS)

    service.deployments.deploy(DEFAULT_TENANT, says.graph)

    async def one(durable: bool) -> float:
        text = f"Write a long story about the number {next(numbers)}, the sea and a mill."
        return await _one(service, "says", {"text": text}, durable)

    numbers = iter(range(10**9))
    for durable in (*_NAMES, *_NAMES):
        await one(durable)  # the model is loaded, and warm
    times: dict[bool, list[float]] = {False: [], True: []}
    writing = 0.0
    for _ in range(repeats):
        await _settled(service)
        before = _written_s(service)
        times[False].append(await one(False))
        await _settled(service)
        writing += _written_s(service) - before
        times[True].append(await one(True))
    plain, durable_ms = (statistics.median(times[each]) for each in (False, True))
    spent = {
        "ledger_replica_ms": _replica_ms(),
        "ledger_writes_ms": writing / repeats * 1e3,
        "ledger_looks_ms": await _look_ms(service) * plain / 1e3 / service.settings.usage_fetch_s,
    }
    return {
        "real_plain_ms": plain,
        "real_durable_ms": durable_ms,
        "real_durable_over_plain": durable_ms / plain,
        "real_plain_spread_ms": max(times[False]) - min(times[False]),
        **spent,
        "ledger_share": sum(spent.values()) / plain,
    }


async def _settled(service: Service) -> None:
    """Have in the ledger what has ended, so that the next run's writes are its own."""
    while service.accounts._settling is not None:
        await asyncio.wait([service.accounts._settling])
    await service.accounts.fetch()


def _written_s(service: Service) -> float:
    """Seconds that a processor spent in the thread that writes the database."""
    thread = service.database._thread.ident
    assert thread is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread))


def _replica_ms() -> float:
    """Milliseconds of counting one request that is alone in its engine for all its steps."""
    with tempfile.TemporaryDirectory() as folder:
        found = [count(Path(folder), 1) for _ in range(_REPEATS)]
    step, request = (statistics.median(each) for each in zip(*found, strict=True))
    return (step * _TOKENS + request) / 1e3


async def _look_ms(service: Service) -> float:
    """Milliseconds that processors spend on one look for new usage, in the service and the agents
    of its machine."""
    agents = [psutil.Process(each.pid) for each in service.runtime.driver.cluster.topology.workers]

    def spent() -> float:
        times = [each.cpu_times() for each in agents]
        return time.process_time() + sum(each.user + each.system for each in times)

    before = spent()
    for _ in range(_LOOKS):
        await service.accounts.fetch()
    return (spent() - before) / _LOOKS * 1e3


async def measure(home: Path, url: str, model: str, *, quick: bool) -> dict[str, float]:
    if model:
        (home / "models").symlink_to(Path(Settings.load().home).absolute() / "models")
    service = Service(Settings(home=home, database_url=SecretStr(url)))
    await service.start(None, [])
    try:
        found = await _noop(service, 100 if quick else 300)
        if model:
            found |= await _real(service, model, 4 if quick else 10)
    finally:
        await service.stop()
    return found | {"fsync_ms": _fsync_ms(home), "load": os.getloadavg()[0]}


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--url", default="", help="of PostgreSQL; SQLite without")
    parser.add_argument("--model", default="", help="of a real request; none without")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = asyncio.run(measure(Path(home), given.url, given.model, quick=given.quick))
    report("durability", found, file=given.json)


if __name__ == "__main__":
    main()
