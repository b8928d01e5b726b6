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
from typing import Any

from distributed import Nanny, Scheduler


async def _scheduler() -> Any:
    return Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address=None)


async def _worker(scheduler: str, name: str) -> Any:
    return Nanny(
        scheduler,
        name=name,
        nthreads=1,
        host="127.0.0.1",
        dashboard=False,
        dashboard_address=None,
        memory_limit="auto",
        silence_logs=30,
    )


async def _serve(role: str, *arguments: str) -> None:
    server = await (_scheduler() if role == "scheduler" else _worker(*arguments))
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, gone.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is for whoever started us
    loop.add_reader(sys.stdin.fileno(), lambda: gone.set() if not os.read(0, 4096) else None)
    async with server:
        sys.stdout.write(json.dumps({"address": server.address}) + "\n")
        sys.stdout.flush()
        finished = asyncio.ensure_future(server.finished())
        left = asyncio.ensure_future(gone.wait())
        await asyncio.wait([finished, left], return_when=asyncio.FIRST_COMPLETED)
        left.cancel()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
