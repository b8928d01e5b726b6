"""An agent's side of a replica: one connection, any number of calls over it."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path

import msgspec

from adjoin.errors import EngineError, TransportError, from_wire
from adjoin.functions.engines.base import Delta, Failed, Output, Request
from adjoin.runtime.wire import Abort, Started, Step
from adjoin.transport.frames import Frames, connect
from adjoin.types import Usage

#: How long the acknowledgement of an abort is waited for, in seconds: a few steps of an engine.
_ABORT_TIMEOUT = 10.0


class Call:
    """One request in flight. Whoever begins one must :meth:`end` it."""

    def __init__(self, link: ReplicaLink, id: str) -> None:
        self.id = id
        self._link = link
        self._outputs: asyncio.Queue[Output | None] = asyncio.Queue()
        self._last: Output | None = None
        self._lost = False

    def put(self, output: Output | None) -> None:
        """An output came; None says that no more can come."""
        self._outputs.put_nowait(output)

    async def next(self) -> Output:
        """The next output; one that is no :class:`Delta` is the last.

        Raises:
            AdjoinError: the request failed.
            EngineError: the replica died.
        """
        output = await self._outputs.get()
        if output is None:
            self._lost = True
            raise self._link.died()
        if not isinstance(output, Delta):
            self._last = output
        if isinstance(output, Failed):
            raise from_wire(output.error)
        return output

    async def end(self) -> Usage:
        """What it consumed. A call that has not ended is aborted, and the replica has forgotten it
        when this returns."""
        try:
            if self._last is None and not self._lost:
                self._link.abort(self)
                async with asyncio.timeout(_ABORT_TIMEOUT):
                    await self._drain()
        except TimeoutError:
            pass  # a replica that hangs; its usage is unknown
        finally:
            self._link.forget(self)
        return (
            self._last.usage
            if self._last is not None and not isinstance(self._last, Delta)
            else Usage()
        )

    async def _drain(self) -> None:
        while (output := await self._outputs.get()) is not None:
            if not isinstance(output, Delta):
                self._last = output
                return


class ReplicaLink:
    """Calls to one replica. When its process dies, every call in flight fails at once."""

    def __init__(self, started: Started, model: str, frames: Frames[Step]) -> None:
        self.started = started
        self._model = model
        self._frames = frames
        self._calls: dict[str, Call] = {}
        self._numbers = count()
        self._open = True
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def to(cls, directory: Path, started: Started, model: str) -> ReplicaLink:
        """Connect.

        Raises:
            EngineError: the replica has died.
        """
        try:
            frames: Frames[Step] = await Frames.over(connect(directory / started.socket), Step)
        except OSError as error:
            raise _died(started, model) from error
        return cls(started, model, frames)

    @property
    def open(self) -> bool:
        """Whether the replica lives, as far as is known."""
        return self._open

    def begin(self, request: Request) -> Call:
        """Send a request; its id is replaced.

        Raises:
            EngineError: the replica died.
            TransportError: the request is too large.
        """
        if not self._open:
            raise self.died()
        call = Call(self, str(next(self._numbers)))
        self._frames.write(msgspec.structs.replace(request, id=call.id))
        self._calls[call.id] = call
        return call

    def abort(self, call: Call) -> None:
        self._frames.write(Abort(id=call.id))

    def forget(self, call: Call) -> None:
        self._calls.pop(call.id, None)

    def died(self) -> EngineError:
        return _died(self.started, self._model)

    async def close(self) -> None:
        """Hang up; the replica aborts what is in flight."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for step in self._frames:
                self._open = not step.last
                for output in step.outputs:
                    if call := self._calls.get(output.id):
                        call.put(output)
        except TransportError as error:
            # A replica that sends garbage is as good as dead.
            print(f"replica {self.started.replica}: {error}")  # noqa: T201
        finally:
            self._open = False
            for call in self._calls.values():
                call.put(None)
            await self._frames.close()


def _died(started: Started, model: str) -> EngineError:
    return EngineError(
        f"its replica (process {started.pid}) died",
        where=f"model {model!r}",
        hint=f"its log is {started.log}",
    )
