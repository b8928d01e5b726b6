"""One process of an embedded cluster: ``python -m adjoin.runtime.member scheduler|worker …``.

It lives as long as its standard input is open: when whoever started it ends, however that happens,
the pipe closes and the process leaves. It writes its address to standard output when it is ready.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any, TextIO

from dask import config
from distributed import Nanny, Scheduler

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


async def _scheduler(protocol: str) -> Any:
    return Scheduler(
        protocol=protocol, host="127.0.0.1", port=0, dashboard=False, dashboard_address=None
    )


async def _worker(scheduler: str, name: str) -> Any:
    preload = list(config.get("distributed.worker.preload"))
    if is_ucx(scheduler):  # before the worker listens
        preload.append("adjoin.runtime.ucx_preload")
    return Nanny(
        scheduler,
        protocol=scheduler.partition("://")[0],
        name=name,
        nthreads=1,
        host="127.0.0.1",
        dashboard=False,
        dashboard_address=None,
        memory_limit="auto",
        silence_logs=30,
        preload=preload,
    )


def _take_stdout() -> TextIO:
    """Standard output for us alone: UCX, and functions that print, write to the log instead."""
    ours = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return ours


async def _serve(role: str, *arguments: str) -> None:
    config.set(_QUIET)
    answer = _take_stdout()
    if is_ucx(arguments[0]):
        prepare(alone=True)
    server = await (_scheduler(*arguments) if role == "scheduler" else _worker(*arguments))
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, gone.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is for whoever started us
    loop.add_reader(sys.stdin.fileno(), lambda: gone.set() if not os.read(0, 4096) else None)
    async with server:
        with answer:
            answer.write(json.dumps({"address": server.address}) + "\n")
        finished = asyncio.ensure_future(server.finished())
        left = asyncio.ensure_future(gone.wait())
        await asyncio.wait([finished, left], return_when=asyncio.FIRST_COMPLETED)
        left.cancel()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
