"""How a durable run gets its results into its journal, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from adjoin.errors import AdjoinError, StateError, TransportError
from adjoin.runtime import moves as m
from adjoin.runtime.protocol import Ref
from adjoin.transport.codec import Encoded, on_host
from adjoin.types import Event


class Journal(Protocol):
    """The journal of one run, as its driver sees it.

    Attributes:
        past: what it has of the run.
        history: the events that readers were shown, from the first.
    """

    past: m.Past
    history: Sequence[Event]

    async def record(self, results: Sequence[tuple[str, m.Result]]) -> list[m.Result]:
        """Keep the results of stages, in this order; returns them as they are had from now on. It
        waits for as long as nothing can be written.

        Raises:
            StateError: the service ends.
        """
        ...

    async def load(self, value: m.Stored) -> Encoded:
        """A value that it keeps; raises :class:`StateError` when that is damaged."""
        ...


class Recording:
    """Records what a run commands: in its order, all that waits in one write."""

    def __init__(
        self,
        journal: Journal,
        pull: Callable[[Ref], Awaitable[Encoded]],
        tell: Callable[[m.Fact], None],
    ) -> None:
        self._journal = journal
        self._pull = pull
        self._tell = tell
        self._waiting: list[m.Record] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, command: m.Record) -> None:
        self._waiting.append(command)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._record_all())

    def close(self) -> None:
        """What has not been recorded is not any more: the run has ended."""
        if self._task is not None:
            self._task.cancel()

    async def load(self, value: m.Stored) -> Encoded:
        return await self._journal.load(value)

    async def _record_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            found = await asyncio.gather(*(self._result(command) for command in group))
            kept = [
                (command.stage, result)
                for command, result in zip(group, found, strict=True)
                if result is not None
            ]
            try:
                recorded = await self._journal.record(kept)
            except AdjoinError as error:
                self._tell(m.Stop(error))
                return
            names = (stage for stage, _ in kept)
            results = dict(zip(names, recorded, strict=True))
            for command in group:
                if (result := results.get(command.stage)) is None:
                    self._tell(m.RecordFailed(command.stage, command.attempt))
                else:
                    self._tell(m.Recorded(command.stage, command.attempt, result.value))

    async def _result(self, command: m.Record) -> m.Result | None:
        """A result with its value here; None when that is gone."""
        value = command.value
        if isinstance(value, Ref):
            try:
                pulled = await self._pull(value)
            except (TransportError, StateError):
                return None
            # Copied: what lies in shared memory is lent, and its owner waits for it.
            value = Encoded(pulled.header, tuple(map(bytes, on_host(pulled.buffers))))
        return m.Result(command.attempt, command.usage, value, command.skipped)
