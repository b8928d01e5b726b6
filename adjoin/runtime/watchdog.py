"""Names the stage that blocks a worker's event loop, on which all its ``async`` stages run."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any

from adjoin.runtime.policies.blocking import LOOKS, Look, Pulse, looked
from adjoin.types import Body, StageWarning

_log = logging.getLogger(__name__)


class AsyncCall:
    """A call of an ``async`` function that is under way; ``emit`` takes its events on the loop."""

    def __init__(self, function: Callable[..., Any], emit: Callable[[Body], None]) -> None:
        self.function = function
        self.warning: StageWarning | None = None
        self._emit = emit
        self._told = False

    def tell(self) -> None:
        """Emit the warning, once."""
        if self.warning is not None and not self._told:
            self._told = True
            self._emit(self.warning)


_current: ContextVar[AsyncCall | None] = ContextVar("adjoin_async_call", default=None)
_under_way: set[AsyncCall] = set()


class watched:  # noqa: N801  # a context manager
    """While a call of an ``async`` function is under way. Tasks that it starts belong to it."""

    def __init__(self, function: Callable[..., Any], emit: Callable[[Body], None]) -> None:
        self._call = AsyncCall(function, emit)

    def __enter__(self) -> None:
        self._token = _current.set(self._call)
        _under_way.add(self._call)

    def __exit__(self, *_: object) -> None:
        _under_way.discard(self._call)
        _current.reset(self._token)
        self._call.tell()  # what was found in the last step, before the stage is over


class Watchdog:
    """A thread that looks at the loop it was made on.

    Args:
        limit: seconds without a tick after which a step counts as blocking.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._ended = threading.Event()
        self._ticks = 0
        self._steps = 0
        self._handle: Any = None
        self._pulse: Pulse | None = None

    def start(self) -> None:
        threading.Thread(target=self._watch, name="adjoin-watchdog", daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        with suppress(RuntimeError):  # the loop has been closed
            while not self._ended.wait(self._limit / LOOKS):
                if _under_way:
                    self.look(time.monotonic())
                else:
                    self._pulse = self._handle = None

    def look(self, now: float) -> None:
        """Look once; called from another thread than the loop's."""
        handle, call, line = running(self._loop_thread)
        if handle is not self._handle:  # which we keep, so that no other one has its address
            self._handle, self._steps = handle, self._steps + 1
        step = self._steps if call is not None else 0
        self._pulse = looked(self._pulse, Look(now, self._ticks, step), self._limit)
        self._loop.call_soon_threadsafe(self._tick)
        if call is not None and call.warning is None and self._pulse.blocked(self._limit):
            call.warning = _warning(call, line, self._limit)
            _log.warning("%s", call.warning)
            self._loop.call_soon_threadsafe(call.tell)

    def _tick(self) -> None:
        self._ticks += 1


def running(thread: int) -> tuple[Any, AsyncCall | None, str]:
    """The handle that a loop's thread runs, the call that it belongs to, and where that is.

    The context of a step is that of its handle, and asyncio's handles run in a frame of Python; of
    a loop that has other ones, nothing is known.
    """
    innermost = frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_code is not asyncio.Handle._run.__code__:
        frame = frame.f_back
    handle = frame.f_locals.get("self") if frame is not None else None  # it drops it at its end
    if handle is None or innermost is None:
        return None, None, ""
    call = handle._context.get(_current)
    return handle, call, _place(innermost, call) if call is not None else ""


def _place(frame: FrameType, call: AsyncCall) -> str:
    """The innermost line in the file of the stage's function, or else the innermost line."""
    place: FrameType | None = frame
    file = call.function.__code__.co_filename
    while place is not None and place.f_code.co_filename != file:
        place = place.f_back
    place = place or frame
    file = place.f_code.co_filename
    if file.startswith("<"):  # newer cloudpickles do not say where a function was written
        file = f"module {place.f_globals.get('__name__', '')}"
    return f"{file}:{place.f_lineno}, in {place.f_code.co_qualname}"


def _warning(call: AsyncCall, line: str, limit: float) -> StageWarning:
    return StageWarning(
        what=f"the async function {call.function.__name__!r} blocks its worker's event loop",
        where=line,
        why=f"it has computed or waited there for {limit:g} s without an await; meanwhile the "
        "worker runs no other async stage, sends nothing and keeps no timeout",
        hint="declare it with def, which runs in a thread, or await what it waits for",
    )
