"""One process of an embedded cluster: ``python -m adjoin.runtime.member``.

The first line of its standard input says as JSON what it is to be; its argument is its name, for
whoever lists processes. It lives as long as that input is open: when whoever started it ends,
however that happens, the pipe closes and the process leaves. It writes its address to standard
output when it is ready.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from dask import config
from distributed import Nanny, Scheduler

from adjoin.runtime.agent import AgentPlugin
from adjoin.transport.ucx import is_ucx, prepare

#: Dask looks at itself many times a second, for a dashboard that is not there. Every look takes a
#: core from a model whose threads then wait for each other. Its worker inherits this from a nanny.
_QUIET = {
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
}


async def _scheduler(job: Mapping[str, Any]) -> Any:
    return Scheduler(
        protocol=job["protocol"],
        host="127.0.0.1",
        port=job["port"],
        dashboard=False,
        dashboard_address=None,
    )


async def _worker(job: Mapping[str, Any]) -> Any:
    scheduler = job["scheduler"]
    preload = list(config.get("distributed.worker.preload"))
    if is_ucx(scheduler):  # before the worker listens
        preload.append("adjoin.runtime.ucx_preload")
    return Nanny(
        scheduler,
        protocol=scheduler.partition("://")[0],
        name=job["name"],
        nthreads=1,
        host="127.0.0.1",
        dashboard=False,
        dashboard_address=None,
        memory_limit="auto",
        silence_logs=30,
        preload=preload,
        plugins=(AgentPlugin(job["settings"], job["cluster"], rejoins=True),),
    )


def _take_stdout() -> TextIO:
    """Standard output for us alone: UCX, and functions that print, write to the log instead."""
    ours = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return ours


async def _serve(job: Mapping[str, Any]) -> None:
    config.set(_QUIET)
    answer = _take_stdout()
    if is_ucx(job.get("protocol") or job["scheduler"]):
        prepare(alone=True)
    server = await (_scheduler(job) if job["role"] == "scheduler" else _worker(job))
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, gone.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is for whoever started us
    loop.add_reader(sys.stdin.fileno(), _heard, gone)
    left = asyncio.ensure_future(gone.wait())
    starting = asyncio.ensure_future(server)
    await asyncio.wait([starting, left], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        os._exit(1)  # it may wait for ever for a scheduler that went with whoever started us
    async with server:
        await starting  # for its error
        with answer:
            answer.write(json.dumps({"address": server.address}) + "\n")
        finished = asyncio.ensure_future(server.finished())
        await asyncio.wait([finished, left], return_when=asyncio.FIRST_COMPLETED)
        left.cancel()


def _heard(gone: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)  # which would be called again and again
        gone.set()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.stdin.readline())))
