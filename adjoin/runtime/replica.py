"""A replica: one loaded model in a process of its own, forked from a template.

The main thread owns the engine and its step loop. A second thread runs the sockets: one to the
host, whose end means the end of this process, and one to each agent that calls.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from itertools import count
from pathlib import Path
from typing import NoReturn

import msgspec

from adjoin.errors import (
    AdjoinError,
    EngineError,
    ModelError,
    Overloaded,
    TransportError,
    to_wire,
)
from adjoin.functions import engines
from adjoin.functions.engines.base import Delta, Engine, Failed, LoadSpec, Output
from adjoin.runtime import process
from adjoin.runtime.openmp import ComputeThreads
from adjoin.runtime.policies.batching import Limits
from adjoin.runtime.step_loop import StepLoop, is_out_of_memory
from adjoin.runtime.told import Told
from adjoin.runtime.usage_log import UsageLog
from adjoin.runtime.wire import (
    Abort,
    AskStats,
    CallMessage,
    Fork,
    LoadFailed,
    Ready,
    Stats,
    Step,
)
from adjoin.transport.frames import Frames, check_peer, listen

_EXIT_LOAD_FAILED = 3
_EXIT_ENGINE_LOST = 4
#: How long last words to agents and host may take, in seconds.
_LAST_WORDS = 2.0


def main(fork: Fork, link: socket.socket) -> NoReturn:
    """The whole life of a replica; runs in the process just forked and never returns."""
    os.setsid()
    process.ignore_interrupts()
    process.redirect_output(Path(fork.log))
    process.volunteer_for_out_of_memory()
    server = ReplicaServer(fork, link)
    server.start()
    code = _EXIT_LOAD_FAILED
    try:
        began = time.perf_counter()
        engine = _load(fork.spec, fork.log)
        limits = Limits(capacity=min(engine.capacity, fork.spec.sequences or engine.capacity))
        seconds = time.perf_counter() - began
        tally = UsageLog(Path(fork.usage), engine.capacity)
        tally.loaded(fork.spec.model, seconds)
        loop = StepLoop(engine, limits, server.deliver, log=fork.log, tally=tally)
        server.open(loop, engine, seconds)
        code = _EXIT_ENGINE_LOST
        loop.run(ComputeThreads(fork.spec.threads).look)
    except AdjoinError as error:
        print(f"{type(error).__name__}: {error}", flush=True)  # noqa: T201 - this is the log
        if code == _EXIT_LOAD_FAILED:
            server.tell_host(LoadFailed(error=to_wire(error)))
    finally:
        server.flush()
        # Not sys.exit: what the template imported would run its exit handlers in the wrong process.
        os._exit(code)


def _load(spec: LoadSpec, log: str) -> Engine:
    try:
        return engines.find(spec.engine).resolve().load(spec)
    except AdjoinError:
        raise
    except Exception as error:
        import traceback

        traceback.print_exc()
        where = f"model {spec.model!r}"
        if is_out_of_memory(error):
            raise EngineError(
                f"engine {spec.engine!r} ran out of memory while loading",
                where=where,
                hint=f"lower kv_cache_gb or max_model_len; its log is {log}",
            ) from error
        first = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"engine {spec.engine!r} cannot load it: {type(error).__name__}: {first}",
            where=where,
            hint=f"its log is {log}",
        ) from error


def _renamed(output: Output, id: str) -> Output:
    """With the caller's own id; what it has consumed is told at its end."""
    if isinstance(output, Delta):
        return Delta(id=id, tokens=output.tokens)
    return msgspec.structs.replace(output, id=id)


class ReplicaServer:
    """The sockets of a replica, on a thread of their own."""

    def __init__(self, fork: Fork, link: socket.socket) -> None:
        self._fork = fork
        self._link = link
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sockets", daemon=True)
        self._listening = threading.Event()
        self._host: Frames[AskStats]
        self._steps: StepLoop | None = None
        self._numbers = count()
        self._agents: set[Frames[CallMessage]] = set()
        #: Which connection asked for a request, and by which id.
        self._callers: dict[str, tuple[Frames[CallMessage], str]] = {}
        self._told: Told | None = None

    def start(self) -> None:
        self._thread.start()
        self._listening.wait()

    # --- called from the main thread --------------------------------------------------------------

    def open(self, steps: StepLoop, engine: Engine, seconds: float) -> None:
        """Tell the host that calls may come."""
        self._steps = steps
        self._told = Told(engine.figures)
        self.tell_host(
            Ready(
                capabilities=sorted(engine.capabilities),
                context=engine.context,
                dimension=engine.dimension,
                seconds=seconds,
            )
        )

    def deliver(self, outputs: list[Output], *, last: bool = False) -> None:
        self._loop.call_soon_threadsafe(self._deliver, outputs, last)

    def tell_host(self, message: Ready | LoadFailed) -> None:
        self._loop.call_soon_threadsafe(self._host.write, message)

    def flush(self) -> None:
        """Wait until the peers' sockets took everything, or they are too slow."""
        done = asyncio.run_coroutine_threadsafe(self._flush(), self._loop)
        try:
            done.result(timeout=_LAST_WORDS)
        except TimeoutError:
            done.cancel()

    # --- on the sockets' thread -------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            # The host has gone, or this thread is broken: nothing may stay behind.
            os._exit(0)

    async def _serve(self) -> None:
        self._host = await Frames.over(self._link, AskStats)
        await asyncio.start_unix_server(self._connected, sock=listen(Path(self._fork.socket)))
        self._listening.set()
        async for asked in self._host:
            told = self._told.packed() if asked.figures and self._told else b""
            self._host.write(self._stats(told))

    def _stats(self, figures: bytes) -> Stats:
        if self._steps is None:
            return Stats(queued=0, running=0, totals={})
        totals = msgspec.structs.asdict(self._steps.totals())
        return Stats(
            queued=self._steps.queued,
            running=self._steps.running,
            totals=totals,
            step_s=self._steps.step_s,
            longest_s=self._steps.longest_s,
            figures=figures,
        )

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames: Frames[CallMessage] = Frames(reader, writer, CallMessage)
        self._agents.add(frames)
        try:
            check_peer(writer.get_extra_info("socket"))
            async for message in frames:
                self._take(frames, message)
        except TransportError as error:
            print(f"a connection was closed: {error}", flush=True)  # noqa: T201 - this is the log
        finally:
            self._agents.discard(frames)
            self._forget(frames)
            await frames.close()

    def _take(self, caller: Frames[CallMessage], message: CallMessage) -> None:
        if self._steps is None:
            caller.write(Step(outputs=[Failed.of(message.id, Overloaded("the model still loads"))]))
        elif isinstance(message, Abort):
            for id, (frames, theirs) in self._callers.items():
                if frames is caller and theirs == message.id:
                    self._steps.abort(id)
        else:
            id = f"r{next(self._numbers)}"
            self._callers[id] = (caller, message.id)
            self._steps.submit(msgspec.structs.replace(message, id=id))

    def _forget(self, caller: Frames[CallMessage]) -> None:
        """The agent has gone: abort everything that it asked for."""
        for id, (frames, _) in list(self._callers.items()):
            if frames is caller:
                del self._callers[id]
                if self._steps is not None:
                    self._steps.abort(id)

    def _deliver(self, outputs: list[Output], last: bool) -> None:
        # At the end everybody is told, also those without a call.
        batches: dict[Frames[CallMessage], list[Output]] = {a: [] for a in self._agents if last}
        for output in outputs:
            found = self._callers.get(output.id)
            if not isinstance(output, Delta):
                self._callers.pop(output.id, None)
            if found is None:
                continue  # its agent has gone
            frames, theirs = found
            batches.setdefault(frames, []).append(_renamed(output, theirs))
        for frames, batch in batches.items():
            frames.write(Step(outputs=batch, last=last))

    async def _flush(self) -> None:
        await asyncio.gather(self._host.flush(), *(peer.flush() for peer in self._agents))
