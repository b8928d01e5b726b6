"""The journal of the service's durable runs, in its database and its store of values."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from adjoin.errors import StateError, TransportError
from adjoin.runtime import moves as m
from adjoin.runtime.database import Database, journal
from adjoin.runtime.database.journal import Accepted, Known, Recording, Shown
from adjoin.runtime.gateway.bodies import encode
from adjoin.runtime.gateway.ledger import settle
from adjoin.runtime.policies.billing import Settlement
from adjoin.runtime.values import ValueStore, pack, unpack
from adjoin.transport import codec
from adjoin.transport.codec import Encoded
from adjoin.types import Body, Event, RunCompleted, Tokens, Usage

_AGAIN_S = 0.5
_LONGEST_S = 10.0
_FORGET_AT_ONCE = 200

_log = logging.getLogger("adjoin.gateway")


class RunsJournal:
    """What every durable run was accepted with, recorded, showed and ended with.

    What has to be written of a run that was accepted is tried again until it can be: a run whose
    end cannot be written has not ended, and nobody is told that it has.

    Args:
        inline_bytes: larger values go into the store.
    """

    def __init__(self, database: Database, values: ValueStore, inline_bytes: int) -> None:
        self._database = database
        self._values = values
        self._inline_bytes = inline_bytes

    async def accept(self, run: Accepted, graph: bytes) -> str:
        """Have a run known, on the disk; returns its id, or that of the run that has its key.

        Raises:
            StateError: it could not be written, and is not accepted.
        """
        found: str = await self._database.write(lambda c: journal.accept(c, run, graph))
        return found

    async def open(self, id: str) -> tuple[Known, RunJournal]:
        """What is known of a run that has not ended, and its journal.

        Raises:
            StateError: what is kept of it is damaged.
        """

        def read(connection: Connection) -> tuple[Known, m.Past, list[Shown]]:
            known = journal.find(connection, id)
            if known is None:
                raise StateError("the journal has no such run", where=f"run {id}")
            past = journal.past_of(connection, known)
            return known, past, journal.shown_of(connection, id)

        known, past, shown = await self._database.read(read)
        history = [msgspec.json.decode(each.data, type=Event) for each in shown]
        return known, RunJournal(self, id, past, history)

    def begun(self, id: str) -> RunJournal:
        """The journal of a run that was accepted just now."""
        return RunJournal(self, id, m.Past(), [])

    async def show(self, id: str, news: Sequence[Event]) -> None:
        """Events that readers are sent next."""
        await self._persist(lambda c: journal.show(c, id, _shown(news)))

    async def end(self, end: Settlement, news: Sequence[Event], usage: Usage) -> None:
        """The last events, how the run ended, and what is billed of it, all in one."""
        outputs = await self._outputs(news[-1].body)

        def write(connection: Connection) -> None:
            journal.show(connection, end.run, _shown(news))
            if journal.end(connection, end.run, end.state, end.at, usage, outputs):
                settle(connection, [end])

        await self._persist(write)

    async def record(self, id: str, results: Sequence[tuple[str, m.Result]]) -> list[m.Result]:
        kept = [(stage, await self._kept(result)) for stage, result in results]
        rows = [Recording(stage, result) for stage, result in kept]
        await self._persist(lambda c: journal.record(c, id, rows))
        return [result for _, result in kept]

    async def load(self, value: m.Stored) -> Encoded:
        return unpack(await asyncio.to_thread(self._values.get, value.digest))

    async def unfinished(self) -> list[str]:
        return await self._database.read(journal.unfinished)

    async def take_up(self, ids: Sequence[str]) -> None:
        await self._database.write(lambda c: journal.take_up(c, ids))

    async def clear(self, ids: Sequence[str]) -> None:
        await self._database.write(lambda c: journal.clear(c, ids))

    async def drop(self, id: str) -> None:
        """End a run of which nothing can be read, so that it is not looked at again."""
        now = time.time()
        await self._database.write(lambda c: journal.end(c, id, "failed", now, Usage()))

    async def find(self, id: str) -> Known | None:
        return await self._database.read(lambda c: journal.find(c, id))

    async def find_key(self, tenant: str, key: str) -> Known | None:
        return await self._database.read(lambda c: journal.find_key(c, tenant, key))

    async def of_tenant(self, tenant: str, most: int) -> list[Known]:
        return await self._database.read(lambda c: journal.of_tenant(c, tenant, most))

    async def shown(self, id: str) -> list[Shown]:
        return await self._database.read(lambda c: journal.shown_of(c, id))

    async def outputs(self, id: str) -> dict[str, Any] | None:
        """What a run returned, as it was; None when that is not kept, or damaged."""
        value = await self._database.read(lambda c: journal.outputs_of(c, id))
        try:
            encoded = await self.load(value) if isinstance(value, m.Stored) else value
            return None if encoded is None else dict(codec.decode(encoded))
        except (StateError, TransportError) as error:
            _log.error("run %s: %s", id, error)
            return None

    async def forget(self, ids: Sequence[str]) -> None:
        await self._database.write(lambda c: journal.forget(c, ids))

    async def sweep(self, before: float, most_bytes: int) -> int:
        """Forget runs that ended before a time, and more while they take more than so many bytes;
        then the values that no run has recorded. Returns the number of runs."""
        count = 0
        while True:
            ids = await self._database.read(
                lambda c: journal.expired(c, before, most_bytes, _FORGET_AT_ONCE)
            )
            if not ids:
                break
            await self.forget(ids)
            count += len(ids)
        await asyncio.to_thread(self._values.sweep, self._is_named)
        return count

    def _is_named(self, digest: bytes) -> bool:
        return self._database.read_now(lambda c: journal.names_value(c, digest))

    async def _outputs(self, body: Body) -> m.Result | None:
        if not isinstance(body, RunCompleted):
            return None
        try:
            return await self._kept(m.Result(0, Usage(), codec.encode(body.outputs)))
        except TransportError:
            return None  # of a type that JSON knows and the codec does not

    async def _kept(self, result: m.Result) -> m.Result:
        """The result with its value where it stays."""
        value = result.value
        if not isinstance(value, Encoded) or value.nbytes <= self._inline_bytes:
            return result
        data = pack(value)
        digest = await _until_done(lambda: asyncio.to_thread(self._values.put, data))
        return msgspec.structs.replace(result, value=m.Stored(digest, len(data)))

    async def _persist(self, work: Callable[[Connection], Any]) -> None:
        await _until_done(lambda: self._database.write(work))


class RunJournal:
    """The journal of one run, for its driver: see :class:`adjoin.runtime.recording.Journal`."""

    def __init__(
        self, journal: RunsJournal, id: str, past: m.Past, history: Sequence[Event]
    ) -> None:
        tokens = {e.stage for e in history if isinstance(e.body, Tokens)}
        # A call below a stage is named after it: solve[3], tree#2/draft.
        sent = {name.partition("[")[0].partition("#")[0].partition("/")[0] for name in tokens}
        self.past = msgspec.structs.replace(past, shown=frozenset(sent))
        self.history = history
        self._journal = journal
        self._id = id

    async def record(self, results: Sequence[tuple[str, m.Result]]) -> list[m.Result]:
        return await self._journal.record(self._id, results)

    async def load(self, value: m.Stored) -> Encoded:
        return await self._journal.load(value)


def _shown(news: Sequence[Event]) -> list[Shown]:
    return [Shown(event.seq, type(event.body).__name__, encode(event)) for event in news]


async def _until_done(work: Callable[[], Any]) -> Any:
    """What the work gives; it is done again for as long as the disk or the database refuses."""
    wait = _AGAIN_S
    while True:
        try:
            return await work()
        except StateError as error:
            _log.error("a durable run waits: %s", error)
        await asyncio.sleep(wait)
        wait = min(2 * wait, _LONGEST_S)
