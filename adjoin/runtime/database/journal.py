"""The journal of durable runs: what is written when, as functions of a connection.

Each function is one step inside a transaction of whoever calls it, and may be repeated: after a
commit of which nobody knows whether it happened, it is simply done again. Rows that matter have a
checksum, so that a bit that flips on the disk is found instead of believed.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Table, and_, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from adjoin.errors import StateError
from adjoin.runtime.database.tables import events, graphs, recorded, runs
from adjoin.runtime.moves import Past, Result, Stored
from adjoin.runtime.values import checked, digest_of, pack, unpack
from adjoin.transport.codec import Encoded
from adjoin.types import Usage

OPEN = "open"
#: No stage has this name.
_OUTPUTS = ""

# Put together once: that takes longer than to run them.
_ENDED = (
    update(runs)
    .where(runs.c.id == bindparam("this"), runs.c.state == OPEN)
    .values(seconds=bindparam("ended") - runs.c.created)
    .values({name: bindparam(name) for name in ("state", "ended", "usage", "suspected")})
)
_UNRECORDED = delete(recorded).where(recorded.c.run == bindparam("this"))


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was accepted with; it never changes.

    Attributes:
        workflow, version, revision: as clients see them.
        plain: ``generate`` or ``embed`` for a model that is asked as it is; empty for a workflow.
        deadline: seconds since the epoch.
        trace: headers of W3C Trace Context.
        tokens: the budget of its own, where its request named one.
    """

    id: str
    tenant: str
    workflow: str
    version: str
    revision: int
    plain: str = ""
    inputs: Encoded
    streaming: bool
    created: float
    deadline: float
    key: str | None = None
    fingerprint: bytes = b""
    trace: Mapping[str, str] = {}
    tokens: int | None = None


class Shown(msgspec.Struct, frozen=True):
    """An event as readers were shown it: number, kind, JSON."""

    seq: int
    kind: str
    data: bytes


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the journal knows it."""

    accepted: Accepted
    graph: bytes
    state: str
    lives: int
    suspected: int
    ended: float | None
    seconds: float
    usage: Usage


class Recording(msgspec.Struct, frozen=True):
    """A stage's result on its way into the journal; ``value`` is Stored when a store has it."""

    stage: str
    result: Result


def accept(connection: Connection, run: Accepted, graph: bytes) -> str:
    """Let a run be known with its graph in wire form; returns its id, or that of the run that has
    its key already."""
    digest = digest_of(graph)
    connection.execute(_new(connection, graphs), {"digest": digest, "wire": graph})
    data = msgspec.msgpack.encode(run)
    row = {
        "id": run.id,
        "tenant": run.tenant,
        "accepted": data,
        "checksum": zlib.crc32(data),
        "graph": digest,
        "key": run.key,
        "fingerprint": run.fingerprint,
        "created": run.created,
        "lives": 1,
        "suspected": 0,
        "state": OPEN,
    }
    inserted = connection.execute(_new(connection, runs), row)
    if run.key is None or inserted.rowcount == 1:
        return run.id
    mine = and_(runs.c.tenant == run.tenant, runs.c.key == run.key)
    return str(connection.execute(select(runs.c.id).where(mine)).scalar_one())


def take_up(connection: Connection, ids: Sequence[str]) -> None:
    """A service goes on with these runs: a new life, and a suspicion that each may kill it."""
    more = {"lives": runs.c.lives + 1, "suspected": runs.c.suspected + 1}
    connection.execute(update(runs).where(runs.c.id.in_(ids), runs.c.state == OPEN).values(more))


def clear(connection: Connection, ids: Sequence[str]) -> None:
    """The service has lived on with these runs."""
    connection.execute(update(runs).where(runs.c.id.in_(ids)).values(suspected=0))


def record(connection: Connection, run: str, results: Iterable[Recording]) -> None:
    """Put results into the journal, each once: a later attempt replaces an earlier one, whose
    result nobody can be given any more, and never the other way round."""
    rows = []
    for each in results:
        result = each.result
        row: dict[str, Any] = {
            "run": run,
            "stage": each.stage,
            "attempt": result.attempt,
            "skipped": result.skipped,
            "usage": msgspec.json.encode(result.usage),
            "digest": b"",
            "nbytes": 0,
            "value": None,
        }
        if isinstance(result.value, Stored):
            row |= {"digest": result.value.digest, "nbytes": result.value.nbytes}
        elif result.value is not None:
            data = pack(result.value)
            row |= {"digest": digest_of(data), "nbytes": len(data), "value": data}
        rows.append(row)
    if rows:
        connection.execute(_later(connection.dialect.name), rows)


def show(connection: Connection, run: str, shown: Sequence[Shown]) -> None:
    """Events that readers are to be sent next."""
    if shown:
        rows = [
            {
                "run": run,
                "seq": each.seq,
                "kind": each.kind,
                "data": each.data,
                "checksum": _checksum(each),
            }
            for each in shown
        ]
        connection.execute(_new(connection, events), rows)


def end(
    connection: Connection,
    run: str,
    state: str,
    ended: float,
    usage: Usage,
    outputs: Result | None = None,
) -> bool:
    """End a run, in this state and no other; says whether it is this one that it ended in. What its
    stages gave is dropped, what it returned is kept."""
    packed = msgspec.json.encode(usage)
    values = {"this": run, "state": state, "ended": ended, "usage": packed, "suspected": 0}
    if not connection.execute(_ENDED, values).rowcount:
        there = connection.execute(select(runs.c.state).where(runs.c.id == run)).scalar()
        return bool(there == state)
    connection.execute(_UNRECORDED, {"this": run})
    if outputs is not None:
        record(connection, run, [Recording(_OUTPUTS, outputs)])
    return True


def outputs_of(connection: Connection, run: str) -> Encoded | Stored | None:
    """What a run that has succeeded returned, with the types that JSON loses."""
    mine = and_(recorded.c.run == run, recorded.c.stage == _OUTPUTS)
    row = connection.execute(select(recorded).where(mine)).first()
    return None if row is None else _value(row)


def find(connection: Connection, id: str) -> Known | None:
    """A run by its id; raises :class:`StateError` when what is kept of it is damaged."""
    row = connection.execute(_known().where(runs.c.id == id)).first()
    return None if row is None else _read(row, id=id)


def find_key(connection: Connection, tenant: str, key: str) -> Known | None:
    """A tenant's run by its idempotency key."""
    mine = and_(runs.c.tenant == tenant, runs.c.key == key)
    row = connection.execute(_known().where(mine)).first()
    return None if row is None else _read(row, tenant=tenant, key=key)


def of_tenant(connection: Connection, tenant: str, most: int) -> list[Known]:
    """A tenant's runs, the newest first."""
    query = _known().where(runs.c.tenant == tenant).order_by(runs.c.created.desc()).limit(most)
    return [_read(row, tenant=tenant) for row in connection.execute(query)]


def unfinished(connection: Connection) -> list[str]:
    """The ids of runs that have not ended, in the order in which they were accepted."""
    query = select(runs.c.id).where(runs.c.state == OPEN).order_by(runs.c.created)
    return list(connection.execute(query).scalars())


def past_of(connection: Connection, known: Known) -> Past:
    """What was recorded of a run; a result that is damaged counts as not recorded."""
    id = known.accepted.id
    results = {}
    for row in connection.execute(select(recorded).where(recorded.c.run == id)):
        try:
            usage, value = _usage(row), _value(row)
        except StateError:
            continue
        results[row.stage] = Result(row.attempt, usage, value, row.skipped)
    return Past(known.lives, results)


def shown_of(connection: Connection, run: str) -> list[Shown]:
    """The events of a run, in order; raises :class:`StateError` when one is damaged or missing."""
    query = select(events).where(events.c.run == run).order_by(events.c.seq)
    found: list[Shown] = []
    for row in connection.execute(query):
        each = Shown(row.seq, row.kind, row.data)
        if _checksum(each) != row.checksum or row.seq != len(found):
            raise StateError("a recorded event is damaged", where=f"run {run}, event {row.seq}")
        found.append(each)
    return found


def names_value(connection: Connection, digest: bytes) -> bool:
    """Whether a recorded result is the value of this digest."""
    query = select(recorded.c.run).where(recorded.c.digest == digest).limit(1)
    return connection.execute(query).first() is not None


def forget(connection: Connection, ids: Sequence[str]) -> None:
    """Delete everything of ended runs, and graphs that none began with."""
    chosen = select(runs.c.id).where(runs.c.id.in_(ids), runs.c.state != OPEN)
    gone = list(connection.execute(chosen).scalars())
    for table in (events, recorded):
        connection.execute(delete(table).where(table.c.run.in_(gone)))
    connection.execute(delete(runs).where(runs.c.id.in_(gone)))
    used = select(runs.c.graph)
    connection.execute(delete(graphs).where(graphs.c.digest.not_in(used)))


def expired(connection: Connection, before: float, most_bytes: int, at_once: int) -> list[str]:
    """Ended runs to forget, the oldest first: those that ended before a time, and more while the
    events of all ended ones take more than so many bytes."""
    old = select(runs.c.id).where(runs.c.state != OPEN, runs.c.ended < before)
    found = list(connection.execute(old.order_by(runs.c.ended).limit(at_once)).scalars())
    size = func.coalesce(func.sum(func.length(events.c.data)), 0)
    sizes = (
        select(runs.c.id, size)
        .join(events, events.c.run == runs.c.id)
        .where(runs.c.state != OPEN)
        .group_by(runs.c.id, runs.c.ended)
        .order_by(runs.c.ended.desc())
    )
    total = 0
    for id, nbytes in connection.execute(sizes):
        total += nbytes
        if total > most_bytes and len(found) < at_once and id not in found:
            found.append(id)
    return found


def _known() -> Any:
    return select(runs, graphs.c.wire).join(graphs, graphs.c.digest == runs.c.graph, isouter=True)


def _read(row: Row[Any], **asked: str) -> Known:
    """``asked`` is what it was found by: a damaged index leads to the row of another run."""
    accepted = None
    if zlib.crc32(row.accepted) == row.checksum:
        accepted = msgspec.msgpack.decode(row.accepted, type=Accepted)
    asked = {"id": row.id, **asked}
    right = accepted and all(getattr(accepted, name) == each for name, each in asked.items())
    if accepted is None or not right or row.wire is None:
        raise StateError(
            "what is kept of a run is damaged",
            where=f"run {row.id}",
            hint="restore a backup, or delete the run's row to go on without it",
        )
    checked(row.wire, row.graph, f"run {row.id}")
    return Known(
        accepted=accepted,
        graph=row.wire,
        state=row.state,
        lives=row.lives,
        suspected=row.suspected,
        ended=row.ended,
        seconds=row.seconds or 0.0,
        usage=_usage(row),
    )


def _usage(row: Row[Any]) -> Usage:
    try:
        return msgspec.json.decode(row.usage, type=Usage) if row.usage else Usage()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise StateError("the recorded usage of a run is damaged") from None


def _value(row: Row[Any]) -> Encoded | Stored | None:
    if row.value is not None:
        where = f"run {row.run}, stage {row.stage!r}"
        return unpack(checked(row.value, row.digest, where), where)
    return Stored(row.digest, row.nbytes) if row.digest else None


def _checksum(each: Shown) -> int:
    return zlib.crc32(each.data, zlib.crc32(b"%d %s" % (each.seq, each.kind.encode())))


def _new(connection: Connection, table: Table) -> Any:
    """An insertion that leaves rows which are there already as they are."""
    return _insertions(connection.dialect.name, table)


@functools.cache
def _insertions(dialect: str, table: Table) -> Any:
    return _DIALECTS[dialect].insert(table).on_conflict_do_nothing()


@functools.cache
def _later(dialect: str) -> Any:
    """Made once: to put a statement together takes longer than to run it."""
    query = _DIALECTS[dialect].insert(recorded)
    names = [column.name for column in recorded.c if not column.primary_key]
    return query.on_conflict_do_update(
        index_elements=["run", "stage"],
        set_={name: query.excluded[name] for name in names},
        where=recorded.c.attempt < query.excluded.attempt,
    )


_DIALECTS: dict[str, Any] = {"postgresql": postgresql, "sqlite": sqlite}
