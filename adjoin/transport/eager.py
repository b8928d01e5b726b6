"""Coroutines that begin at once, instead of when the event loop comes to a task of theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


def started(work: Coroutine[Any, Any, _T]) -> Awaitable[_T]:
    """Run ``work`` up to where it first has to wait; awaiting the answer, once, does the rest.

    It begins outside of a task, so what it does first must not ask for the current one, as
    ``asyncio.timeout`` does. Python 3.12 has ``eager_start`` for tasks; this is for one await.
    """
    return _Started(work)


class _Started(Generic[_T]):
    def __init__(self, work: Coroutine[Any, Any, _T]) -> None:
        self._work = work
        self._waits: Any = None
        self._end: StopIteration | None = None
        self._error: BaseException | None = None
        try:
            self._waits = work.send(None)
        except StopIteration as end:
            self._end = end
        except BaseException as error:  # noqa: BLE001  # whoever awaits it gets it
            self._error = error

    def __await__(self) -> Generator[Any, Any, _T]:
        if self._error is not None:
            raise self._error
        waits = self._waits
        while self._end is None:
            try:
                answer = yield waits
            except BaseException as error:  # noqa: BLE001  # such as a cancellation
                waits = self._resume(self._work.throw, error)
            else:
                waits = self._resume(self._work.send, answer)
        found: _T = self._end.value
        return found

    def _resume(self, go: Any, what: Any) -> Any:
        try:
            return go(what)
        except StopIteration as end:
            self._end = end
            return None
