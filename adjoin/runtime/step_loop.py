"""The loop of a replica's main thread: queue, admission, engine step, delivery."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from adjoin.errors import AdjoinError, EngineError, QuotaExceeded, wrap
from adjoin.functions.engines.base import (
    Delta,
    Engine,
    EngineStats,
    Failed,
    Finished,
    Output,
    Request,
)
from adjoin.runtime.policies.batching import (
    Limits,
    Waiting,
    admit,
    refusal,
    shared_prompt,
    weight,
)
from adjoin.runtime.policies.budget import Pools
from adjoin.runtime.samples import Samples
from adjoin.types import Usage

#: Steps that say how long the next may take.
_REMEMBERED = 64


class Deliver(Protocol):
    def __call__(self, outputs: list[Output], *, last: bool = False) -> None:
        """Take what one turn made, on the loop's thread; ``last`` when the engine is lost."""
        ...


class Tally(Protocol):
    """Where what requests consume is written down: :class:`~adjoin.runtime.usage_log.UsageLog`."""

    def begin(self, request: Request) -> None:
        """It is about to enter the engine; an :class:`AdjoinError` keeps it out."""
        ...

    def withdraw(self, id: str) -> None:
        """The engine did not take it."""
        ...

    def settle(self, seconds: float, outputs: Sequence[Output]) -> None:
        """What a step of so many seconds made; called before it is delivered."""
        ...


class Untold:
    """A tally that forgets."""

    def begin(self, request: Request) -> None: ...

    def withdraw(self, id: str) -> None: ...

    def settle(self, seconds: float, outputs: Sequence[Output]) -> None: ...


class StepLoop:
    """Drives an engine. :meth:`submit`, :meth:`abort` and the counters are for any thread."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        deliver: Deliver,
        *,
        log: str = "",
        tally: Tally | None = None,
    ) -> None:
        self._engine = engine
        self._tally = tally or Untold()
        self._pools = Pools()
        self._limits = limits
        self._deliver = deliver
        self._log = log
        self._inbox: deque[Request | str] = deque()
        self._arrived = threading.Event()
        self._samples = Samples()
        #: In order of arrival, and by id what is inside: each with what admission looks at.
        self._waiting: dict[str, tuple[Request, Waiting]] = {}
        self._running: dict[str, Waiting] = {}
        #: Those inside that have no token yet.
        self._silent: set[str] = set()
        self._began = 0.0  # the step under way, monotonic; 0 for none
        self._steps: deque[float] = deque([0.0], maxlen=_REMEMBERED)

    @property
    def step_s(self) -> float:
        """How long the engine has been in its present step; 0 when it waits for requests."""
        began = self._began
        return time.monotonic() - began if began else 0.0

    @property
    def longest_s(self) -> float:
        """The longest of the last steps."""
        return max(tuple(self._steps))

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

    def run(self, after_turn: Callable[[], None]) -> None:
        """Serve for ever.

        Raises:
            EngineError: the engine is lost; every request has been told.
        """
        while True:
            self.turn()
            after_turn()

    def turn(self) -> None:
        """One round: wait for work if there is none, take in what came, advance the engine, write
        down what that consumed, and only then deliver."""
        if not self._running and not self._waiting:
            self._arrived.wait()
        self._arrived.clear()
        self._began = time.monotonic()
        outputs = self._take_in()
        outputs += self._admit()
        began = time.perf_counter()
        if self._running:
            try:
                outputs += self._engine.step()
            except Exception as error:
                raise self._lost(error, outputs) from error
        outputs = self._hold_to_budgets(outputs)
        self._tally.settle(time.perf_counter() - began, outputs)
        self._settle(outputs)
        if joined := self._samples.join(outputs):
            self._deliver(joined)
        self._steps.append(self.step_s)
        self._began = 0.0

    def _take_in(self) -> list[Output]:
        outputs: list[Output] = []
        aborted: list[str] = []
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item, str):
                aborted += self._samples.members(item)
            elif (refused := refusal(len(self._waiting), self._limits)) is not None:
                outputs.append(Failed.of(item.id, refused))
            else:
                outputs += self._enqueue(item)
        if aborted:
            outputs += self._withdraw(aborted)
            outputs += self._engine.abort([id for id in aborted if id in self._running])
        return outputs

    def _enqueue(self, request: Request) -> list[Output]:
        try:
            samples = self._samples.split(request)
        except AdjoinError as error:
            return [Failed.of(request.id, error)]
        prompt = shared_prompt(request)
        for sample in samples:
            self._waiting[sample.id] = (sample, Waiting(weight(sample), prompt))
        return []

    def _withdraw(self, ids: list[str]) -> list[Output]:
        return [Finished(id=id) for id in ids if self._waiting.pop(id, None) is not None]

    def _admit(self) -> list[Output]:
        queue = list(self._waiting.values())
        entering = admit(
            [entry for _, entry in queue],
            sum(entry.size for entry in self._running.values()),
            self._limits,
            prefilling={self._running[id].prompt for id in self._silent},
            computed={
                entry.prompt for id, entry in self._running.items() if id not in self._silent
            },
        )
        outputs: list[Output] = []
        for at in entering:
            request, entry = queue[at]
            del self._waiting[request.id]
            try:
                self._enter(request)
            except AdjoinError as error:
                outputs.append(Failed.of(request.id, error))
            else:
                self._running[request.id] = entry
                self._silent.add(request.id)
        return outputs

    def _enter(self, request: Request) -> None:
        if refused := self._pools.enter(request.id, request.allowances):
            raise refused
        try:
            self._tally.begin(request)
            try:
                self._engine.add(request)
            except AdjoinError:
                self._tally.withdraw(request.id)
                raise
        except AdjoinError:
            self._pools.leave(request.id, Usage())
            raise

    def _hold_to_budgets(self, outputs: list[Output]) -> list[Output]:
        """Stop what has used up a budget; what has ended in this very step has ended well."""
        over: dict[str, QuotaExceeded] = {}
        if self._pools.busy:
            over = self._pools.draw({output.id: output.usage for output in outputs})
            ended = {output.id for output in outputs if not isinstance(output, Delta)}
            stopped = self._engine.abort([id for id in over if id not in ended])
            outputs += [Failed.of(output.id, over[output.id], output.usage) for output in stopped]
        return outputs

    def _settle(self, outputs: list[Output]) -> None:
        for output in outputs:
            self._silent.discard(output.id)
            if not isinstance(output, Delta):
                self._running.pop(output.id, None)
                self._pools.leave(output.id, output.usage)

    def _lost(self, error: Exception, outputs: list[Output]) -> EngineError:
        """Tell everyone; the process ends next, since nothing in the engine can be trusted."""
        lost = _describe(error, self._log)
        told = {output.id for output in outputs if not isinstance(output, Delta)}
        coming = [item.id for item in self._inbox if not isinstance(item, str)]
        known = (*self._running, *self._waiting, *coming)
        outputs += [Failed.of(id, lost) for id in known if id not in told]
        self._tally.settle(0.0, outputs)
        self._deliver(self._samples.join(outputs), last=True)
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
