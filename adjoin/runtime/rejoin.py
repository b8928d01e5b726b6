"""Lets a Dask worker outlive its scheduler.

A worker of Dask closes when the connection to its scheduler does. That would end what runs on it,
though no run needs the scheduler; so ours stay, and register with the one that takes its place.
"""

from __future__ import annotations

import asyncio
import logging

from distributed import Worker
from distributed.batched import BatchedSend
from distributed.comm import Comm
from distributed.core import Status

_log = logging.getLogger(__name__)
#: How long a worker waits for another scheduler before it leaves after all, in seconds.
WAIT_S = 120.0


def rejoin(worker: Worker) -> None:
    """Have this worker register again when its scheduler is lost. Before it registers first."""
    worker.handle_scheduler = _Following(worker)


class _Following:
    """Takes the place of ``Worker.handle_scheduler``: follows one scheduler after another."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def __call__(self, comm: Comm) -> None:
        worker = self._worker
        try:
            await worker.handle_stream(comm)
        except Exception:  # noqa: BLE001 - whatever it was, this scheduler is of no more use
            _log.exception("what the scheduler says makes no sense")
        if worker.status is not Status.running or worker.state.tasks or worker.data:
            # It was told to close; or it has tasks of others, which a new scheduler knows not of.
            await worker.close(reason="adjoin-left-by-its-scheduler")
            return
        try:
            await asyncio.wait_for(self._register(), WAIT_S)
        except Exception:  # noqa: BLE001 - the worker leaves, as Dask's do
            _log.exception("no scheduler takes this worker again")
            await worker.close(reason="adjoin-no-scheduler")

    async def _register(self) -> None:
        worker = self._worker
        _log.warning("the scheduler at %s was lost; waiting for another", worker.scheduler.address)
        for name in ("keep-alive", "heartbeat"):
            worker.periodic_callbacks[name].stop()
        worker.rpc.remove(worker.scheduler.address)
        await asyncio.sleep(0)
        lost = worker.batched_stream
        worker.batched_stream = BatchedSend(interval="2ms", loop=worker.loop)
        lost.abort()
        # Starts this again, for the connection to the next scheduler.
        await worker._register_with_scheduler()
        _log.warning("registered with the scheduler at %s", worker.scheduler.address)
