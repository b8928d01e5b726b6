"""The loop of a replica's main thread: queue, admission, engine step, delivery."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from adjoin.errors import AdjoinError, EngineError, wrap
from adjoin.functions.engines.base import (
    Delta,
    Engine,
    EngineStats,
    Failed,
    Finished,
    Output,
    Request,
)
from adjoin.runtime.policies.batching import Limits, admit, refusal, weight


class Deliver(Protocol):
    def __call__(self, outputs: list[Output], *, last: bool = False) -> None:
        """Take what one turn made, on the loop's thread; ``last`` when the engine is lost."""
        ...


class StepLoop:
    """Drives an engine. :meth:`submit`, :meth:`abort` and the counters are for any thread."""

    def __init__(self, engine: Engine, limits: Limits, deliver: Deliver, *, log: str = "") -> None:
        self._engine = engine
        self._limits = limits
        self._deliver = deliver
        self._log = log
        self._inbox: deque[Request | str] = deque()
        self._arrived = threading.Event()
        self._waiting: deque[Request] = deque()
        self._running: dict[str, int] = {}

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def totals(self) -> EngineStats:
        return self._engine.stats()

    def submit(self, request: Request) -> None:
        self._put(request)

    def abort(self, id: str) -> None:
        self._put(id)

    def _put(self, item: Request | str) -> None:
        self._inbox.append(item)
        self._arrived.set()
        self._engine.interrupt()

    def run(self) -> None:
        """Serve for ever.

        Raises:
            EngineError: the engine is lost; every request has been told.
        """
        while True:
            self.turn()

    def turn(self) -> None:
        """One round: wait for work if there is none, take in what came, advance the engine."""
        if not self._running and not self._waiting:
            self._arrived.wait()
        self._arrived.clear()
        outputs = self._take_in()
        outputs += self._admit()
        if self._running:
            try:
                outputs += self._engine.step()
            except Exception as error:
                raise self._lost(error, outputs) from error
        self._settle(outputs)
        if outputs:
            self._deliver(outputs)

    def _take_in(self) -> list[Output]:
        outputs: list[Output] = []
        aborted: list[str] = []
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item, str):
                aborted.append(item)
            elif (refused := refusal(len(self._waiting), self._limits)) is not None:
                outputs.append(Failed.of(item.id, refused))
            else:
                self._waiting.append(item)
        if aborted:
            outputs += self._withdraw(set(aborted))
            outputs += self._engine.abort([id for id in aborted if id in self._running])
        return outputs

    def _withdraw(self, ids: set[str]) -> list[Output]:
        withdrawn = [request for request in self._waiting if request.id in ids]
        for request in withdrawn:
            self._waiting.remove(request)
        return [Finished(id=request.id) for request in withdrawn]

    def _admit(self) -> list[Output]:
        sizes = [weight(request) for request in self._waiting]
        outputs: list[Output] = []
        for size in sizes[: admit(sizes, sum(self._running.values()), self._limits)]:
            request = self._waiting.popleft()
            try:
                self._engine.add(request)
            except AdjoinError as error:
                outputs.append(Failed.of(request.id, error))
            else:
                self._running[request.id] = size
        return outputs

    def _settle(self, outputs: list[Output]) -> None:
        for output in outputs:
            if not isinstance(output, Delta):
                self._running.pop(output.id, None)

    def _lost(self, error: Exception, outputs: list[Output]) -> EngineError:
        """Tell everyone; the process ends next, since nothing in the engine can be trusted."""
        lost = _describe(error, self._log)
        told = {output.id for output in outputs if not isinstance(output, Delta)}
        waiting = [item.id for item in (*self._waiting, *self._inbox) if not isinstance(item, str)]
        outputs += [Failed.of(id, lost) for id in (*self._running, *waiting) if id not in told]
        self._deliver(outputs, last=True)
        return lost


def _describe(error: Exception, log: str) -> EngineError:
    cause = wrap(error)
    if is_out_of_memory(error):
        return EngineError(
            "the engine ran out of memory",
            hint=f"lower max_num_seqs, max_model_len or kv_cache_gb; its log is {log}",
        )
    return EngineError(f"the engine failed: {cause.message}", hint=f"its log is {log}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch or a native allocator ran out of memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "bad_alloc" in text
