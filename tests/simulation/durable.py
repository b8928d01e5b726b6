"""The virtual cluster with a journal and a ledger, and a service that dies and comes back.

Both are the real ones, on SQLite in memory. A group of writes that was begun is there as a whole or
not at all, and the service may die before it, after it, or after it without knowing. What the
journal took is there for the next life; all else is gone, with every segment. What engines counted
is in the usage logs of their replicas, which are fetched in any order, again and again, and up to
somewhere in the middle of a record.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from typing import Any

import msgspec
from sqlalchemy import create_engine, event
from sqlalchemy.pool import StaticPool
from world import Chance, World

from adjoin.errors import StateError
from adjoin.functions.engines.base import Account
from adjoin.runtime import moves as m
from adjoin.runtime.database import journal
from adjoin.runtime.database.tables import metadata
from adjoin.runtime.gateway import ledger
from adjoin.runtime.policies.billing import Prices, Settlement
from adjoin.runtime.protocol import Ref
from adjoin.runtime.run import RunState
from adjoin.runtime.usage_records import CallRecord, pack_all, read
from adjoin.runtime.values import digest_of, pack, unpack
from adjoin.transport import codec
from adjoin.transport.codec import Encoded
from adjoin.types import Event, RunStarted, Tokens, Usage

RUN = "run"
_ENGINE = create_engine("sqlite://", poolclass=StaticPool, connect_args={"isolation_level": None})
event.listen(_ENGINE, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
metadata.create_all(_ENGINE)


class Died(Exception):
    """The service, in the middle of a step."""


class DurableWorld(World):
    """One durable run through ``deaths`` deaths of its service."""

    def __init__(self, seed: int, chance: Chance, *, deaths: int, **options: Any) -> None:
        super().__init__(seed, chance, **options)
        self.seed = seed
        self.streaming = options.get("streaming", False)
        self.deaths = deaths
        self.lives = 0
        self.born_at: list[int] = []
        self.recorded_before: dict[str, m.Result] = {}
        self.damaged = 0.0
        self.store: dict[bytes, bytes] = {}
        self.ends: list[m.End] = []
        #: What replicas have written, by log; outlives every service.
        self.logs: dict[str, list[CallRecord]] = defaultdict(list)
        self._tries: Counter[tuple[str, int]] = Counter()
        self._records: deque[m.Record] = deque()
        self._unshown: list[Event] = []
        self._seq = 0
        self.connection = _ENGINE.connect()
        self._transaction = self.connection.begin()  # of the test: rolled back at its end
        accepted = journal.Accepted(
            id=RUN,
            tenant="t",
            workflow="w",
            version="v",
            revision=1,
            inputs=codec.encode({}),
            streaming=self.streaming,
            created=0.0,
            deadline=1e9,
        )
        for _ in range(2):  # of the first nobody knew whether it was written
            assert journal.accept(self.connection, accepted, b"{}") == RUN

    def close(self) -> None:
        self._transaction.rollback()
        self.connection.close()

    def run(self, steps: int = 60_000) -> m.End:
        for _ in range(self.chance.crashes):
            self._later(self.rng.uniform(0, 30), self._crash)
        self._step(self._begin)
        while self._queue and steps and not self.ends:
            steps -= 1
            self._now, _, action = heapq.heappop(self._queue)
            self._step(action)
        assert len(self.ends) == 1, f"{len(self.ends)} ends"
        return self.ends[0]

    # -- lives --

    def _step(self, action: Any) -> None:
        try:
            if self.deaths and self.rng.random() < 0.02:
                raise Died
            action()
        except Died:
            self._rebirth()

    def _rebirth(self) -> None:
        self.deaths -= 1
        if self.known().state != journal.OPEN:  # it had ended, and nobody had heard
            self.ends.append(self._ending)
            return
        for segment in self.segments.values():
            segment.alive = False
        lasting = [each for each in self._queue if each[2] in (self._crash, self._revive)]
        self._queue = lasting
        heapq.heapify(self._queue)
        self._records.clear()
        self._unshown.clear()
        self.outputs.clear()
        self.segments.clear()
        self.ended.clear()
        for digest in list(self.store):
            if self.rng.random() < self.damaged:
                del self.store[digest]
        self._step(self._begin)

    def _begin(self) -> None:
        known = self.known()
        shown = journal.shown_of(self.connection, RUN)
        events = [msgspec.json.decode(each.data, type=Event) for each in shown]
        sent = {e.stage.partition("[")[0] for e in events if isinstance(e.body, Tokens)}
        past = journal.past_of(self.connection, known)
        past = msgspec.structs.replace(past, shown=frozenset(sent))
        self.lives = known.lives
        self.recorded_before = dict(past.results)
        self.born_at.append(len(self.executed))
        self._seq = len(events)
        self._write(lambda: journal.take_up(self.connection, [RUN]))
        self.state = RunState(RUN, self.graph, streaming=self.streaming, past=past)
        self._obey([m.Emit(RunStarted(workflow="w", version="v")), *self.state.begin()])

    def _write(self, work: Any) -> None:
        """One transaction. The service may die before it, or after it without having heard."""
        if self.deaths and self.rng.random() < 0.05:
            raise Died
        if self.deaths and self.rng.random() < 0.05:  # torn: what was begun is as if it never was
            torn = self.connection.begin_nested()
            work()
            torn.rollback()
            raise Died
        for _ in range(2 if self.rng.random() < self.chance.duplicate else 1):
            work()
        if self.deaths and self.rng.random() < 0.05:
            raise Died

    # -- what the driver does of a durable run --

    def _obey(self, commands: list[m.Command]) -> None:
        super()._obey(commands)
        for command in commands:
            match command:
                case m.Record():
                    self._records.append(command)
                    self._later(self._delay(), self._record)
                case m.Emit(body, stage, attempt):
                    self._unshown.append(
                        Event(run=RUN, seq=self._seq, at=0, stage=stage, attempt=attempt, body=body)
                    )
                    self._seq += 1
                    self._later(self._delay(), self._show)
                case m.End():
                    self._end(command)

    def _record(self) -> None:
        """All that is to be recorded so far, in order, in one transaction."""
        group: list[journal.Recording] = []
        facts: list[m.Fact] = []
        while self._records:
            command = self._records.popleft()
            value = command.value
            if isinstance(value, Ref):
                found = self._resolve(value)
                if found is None:
                    facts.append(m.RecordFailed(command.stage, command.attempt))
                    continue
                value = codec.encode(found[0])
                data = pack(value)
                self.store[digest_of(data)] = data
                kept: Encoded | m.Stored | None = m.Stored(digest_of(data), len(data))
            else:
                kept = value
            result = m.Result(command.attempt, command.usage, kept, command.skipped)
            group.append(journal.Recording(command.stage, result))
            facts.append(m.Recorded(command.stage, command.attempt, kept))
        if not group and not facts:
            return
        self._write(lambda: journal.record(self.connection, RUN, group))
        for each in group:
            self._check_once(each)
        for fact in facts:
            self._send(fact)

    def _check_once(self, each: journal.Recording) -> None:
        old = self.recorded_before.get(each.stage)
        if old is not None and old.value is not None and not self.damaged:
            raise AssertionError(f"{each.stage} was recorded, and was made again")

    def _show(self) -> None:
        shown = self._taken()
        self._write(lambda: journal.show(self.connection, RUN, shown))

    def _taken(self) -> list[journal.Shown]:
        shown = [
            journal.Shown(e.seq, type(e.body).__name__, msgspec.json.encode(e))
            for e in self._unshown
        ]
        self._unshown.clear()
        return shown

    def _end(self, end: m.End) -> None:
        shown, self._ending = self._taken(), end
        state = "succeeded" if end.error is None else "failed"
        settlement = Settlement(RUN, self.state.billed(end.error), "t", "w", "v", state, self._now)

        def both() -> None:
            journal.show(self.connection, RUN, shown)
            assert journal.end(self.connection, RUN, state, self._now, end.usage)
            ledger.settle(self.connection, [settlement])

        self._write(both)
        self.ends.append(end)

    def _resolve(self, value: Any) -> tuple[Any] | None:
        if isinstance(value, m.Stored):
            data = self.store.get(value.digest)
            return None if data is None else (codec.decode(unpack(data)),)
        return super()._resolve(value)

    # -- usage --

    def _executing(self, stage: str, attempt: int) -> None:
        super()._executing(stage, attempt)
        self._tries[stage, attempt] += 1
        tries = self._tries[stage, attempt]
        log = self.logs[f"log-{self.rng.randrange(3)}"]
        account = Account("t", "w", "v", RUN, stage, attempt, stage, tries, "m")
        log.append(CallRecord(len(log), account, Usage(generated=1), "ended", self._now))
        self._later(self._delay(), self._fetch)

    def _fetch(self) -> None:
        """Part of one log, from anywhere: what the service knew of it may have died with it."""
        name = self.rng.choice(sorted(self.logs))
        data = pack_all(self.logs[name][self.rng.randrange(len(self.logs[name])) :])
        found = read(data[: self.rng.randrange(len(data) + 1)])
        assert not found.damaged
        self._write(lambda: self._keep(name, found.records))

    def _keep(self, log: str, records: list[CallRecord]) -> None:
        ledger.add(self.connection, [(log, record) for record in records])

    def usage(self) -> ledger.Line:
        """What the ledger says when everything has been fetched."""
        for name, records in self.logs.items():
            self._keep(name, records)
        (line,) = ledger.lines(self.connection, (), ledger.Period(), Prices())
        return line

    def known(self) -> journal.Known:
        found = journal.find(self.connection, RUN)
        if found is None:
            raise StateError("the journal has lost the run")
        return found
