"""Durable runs: accepted once, gone on with after a restart, found again, and forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from adjoin.dag import Function, Graph, from_wire
from adjoin.errors import (
    AdjoinError,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    EngineError,
    GraphError,
    NotFound,
    Overloaded,
    QuotaExceeded,
    StateError,
)
from adjoin.functions import BUILTINS
from adjoin.functions.completion import COMPLETE
from adjoin.runtime.database.journal import OPEN, Accepted, Known
from adjoin.runtime.gateway.accounts import Accounts
from adjoin.runtime.gateway.asks import Ask
from adjoin.runtime.gateway.deployments import Deployment, Deployments
from adjoin.runtime.gateway.durable import DurableRecord, EndedRecord, detached
from adjoin.runtime.gateway.idempotency import Durability, check_same
from adjoin.runtime.gateway.journal import RunsJournal
from adjoin.runtime.gateway.plain import PlainModels, Use
from adjoin.runtime.gateway.records import RunRecord
from adjoin.runtime.gateway.runs import Runs
from adjoin.runtime.gateway.tenancy import belonging
from adjoin.runtime.policies.admission import Limits
from adjoin.settings import Settings
from adjoin.transport import codec

#: A service that lives so long with the runs that it took up was not killed by one of them.
PROBATION_S = 10.0
#: Services that may die soon after they took a run up, before it goes on alone, and how many more
#: may die while it is alone, before it is held to be why. All runs share the deaths of one.
_DEATHS = 2
_DEATHS_ALONE = 3
_ROOM_S = 0.2
_SWEEP_S = 60.0

_log = logging.getLogger("adjoin.gateway")


class DurableRuns:
    """What :class:`~.runs.Runs` does not do for runs that outlive the service."""

    def __init__(
        self,
        runs: Runs,
        journal: RunsJournal,
        deployments: Deployments,
        models: PlainModels,
        accounts: Accounts,
        settings: Settings,
    ) -> None:
        self._runs = runs
        self._journal = journal
        self._deployments = deployments
        self._models = models
        self._accounts = accounts
        self._settings = settings
        self._by_key: dict[tuple[str, str], asyncio.Task[RunRecord]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- accepted --

    async def accept(
        self,
        deployment: Deployment,
        inputs: Mapping[str, Any],
        ask: Ask,
        how: Durability,
        *,
        streaming: bool = False,
    ) -> RunRecord:
        """Accept a run, or find the one that was asked for by the same key. It is in the journal,
        on the disk, when this returns.

        Raises:
            Conflict: the key was used for another request.
            InputError, QuotaExceeded, Overloaded: as :meth:`Runs.start`; nothing was accepted.
        """
        if how.key is None:
            return await self._accept(deployment, inputs, ask, how, streaming)
        name = (deployment.tenant, how.key)
        while (task := self._by_key.get(name)) is not None:
            try:
                record = await asyncio.shield(task)
            except AdjoinError:
                continue  # that one was refused, and this one may not be
            check_same(how.key, _fingerprint(record), how.fingerprint)
            return record
        task = asyncio.ensure_future(self._accept_key(deployment, inputs, ask, how, streaming))
        self._by_key[name] = task
        task.add_done_callback(lambda _: self._by_key.pop(name))
        return await asyncio.shield(task)

    async def _accept_key(
        self,
        deployment: Deployment,
        inputs: Mapping[str, Any],
        ask: Ask,
        how: Durability,
        streaming: bool,
    ) -> RunRecord:
        assert how.key is not None
        known = await self._journal.find_key(deployment.tenant, how.key)
        if known is not None:
            check_same(how.key, known.accepted.fingerprint, how.fingerprint)
            return await self._record(known)
        return await self._accept(deployment, inputs, ask, how, streaming)

    async def _accept(
        self,
        deployment: Deployment,
        inputs: Mapping[str, Any],
        ask: Ask,
        how: Durability,
        streaming: bool,
    ) -> RunRecord:
        ask = await self._accounts.funded(ask, deployment.tenant, how.tokens)
        now = time.time()
        most = self._settings.run_timeout_s
        accepted = Accepted(
            id=ask.run,
            tenant=deployment.tenant,
            workflow=deployment.name,
            version=deployment.graph.version,
            revision=deployment.revision,
            plain=how.plain,
            inputs=codec.encode(deployment.runnable.check_inputs(inputs)),
            streaming=streaming,
            created=now,
            deadline=now + (most if ask.timeout_s is None else min(most, ask.timeout_s)),
            key=how.key,
            fingerprint=how.fingerprint,
            trace=how.trace,
            tokens=how.tokens,
        )
        journal = self._journal.begun(ask.run)
        record = DurableRecord(deployment, accepted, self._journal, journal)
        admitted = self._runs.admit(record, inputs, ask)
        try:
            await self._journal.accept(accepted, deployment.graph.to_wire())
        except StateError as error:
            self._runs.withdraw(record, admitted)
            raise Overloaded(
                f"nothing can be accepted that has to be kept: {error}", retry_after=5.0
            ) from None
        self._runs.launch(record, inputs, ask, admitted, streaming=streaming)
        return record

    # -- found --

    async def find(self, tenant: str, id: str) -> RunRecord:
        """A run of this service or, when it was durable, of an earlier one; raises
        :class:`NotFound`, also for one that is another tenant's."""
        try:
            return self._runs.find(tenant, id)
        except NotFound:
            known = await self._journal.find(id)
            if known is None or known.accepted.tenant != tenant:
                raise
        return await self._record(known)

    async def of(self, tenant: str, most: int) -> list[RunRecord]:
        """A tenant's runs, the newest first."""
        found = {each.id: each for each in self._runs.of(tenant, most)}
        for known in await self._journal.of_tenant(tenant, most):
            if known.accepted.id not in found and known.state != OPEN:
                found[known.accepted.id] = EndedRecord(known, ())
        newest = sorted(found.values(), key=lambda each: each.created, reverse=True)
        return newest[:most]

    async def _record(self, known: Known) -> RunRecord:
        id, tenant = known.accepted.id, known.accepted.tenant
        if known.state == OPEN:
            return self._runs.find(tenant, id)
        shown = await self._journal.shown(id)
        return EndedRecord(known, shown, await self._journal.outputs(id))

    async def forget(self, tenant: str, id: str) -> RunRecord:
        """Delete what is kept of a run that has ended: inputs, results and events.

        Raises:
            NotFound: there is none.
            Conflict: it has not ended.
        """
        record = await self.find(tenant, id)
        if not record.ended:
            raise Conflict("the run has not ended", where=f"run {id}", hint="cancel it first")
        if record.durable:
            await self._journal.forget([id])
        self._runs.forget(id)
        return record

    # -- gone on with --

    async def resume(self) -> int:
        """Go on with the runs that an earlier service left; returns how many."""
        ids = await self._journal.unfinished()
        found = [each for id in ids if (each := await self._reopen(id)) is not None]
        trusted = [each for each in found if each[2] < _DEATHS]
        await self._journal.take_up([record.id for record, _, _ in trusted])
        for record, refused, _ in trusted:
            self._aside(self._continue(record, refused))
        if found:
            _log.warning("going on with %d durable runs", len(found))
            self._aside(self._clear([record.id for record, _, _ in trusted]))
        # Whichever was tried alone least often comes first.
        doubted = sorted((each for each in found if each[2] >= _DEATHS), key=lambda each: each[2])
        self._aside(self._one_by_one([(record, refused) for record, refused, _ in doubted]))
        return len(found)

    async def _one_by_one(
        self, doubted: Sequence[tuple[DurableRecord, AdjoinError | None]]
    ) -> None:
        """Go on with each alone: if the service dies again, that one is known."""
        for record, refused in doubted:
            if record.suspended:  # the service ends, and none of those that are left is why
                self._runs.leave(record)
                continue
            try:
                await self._journal.take_up([record.id])
            except StateError as error:
                _log.error("run %s goes on without being watched: %s", record.id, error)
            await self._continue(record, refused)
            with contextlib.suppress(AdjoinError):
                await record.outcome()

    async def _reopen(self, id: str) -> tuple[DurableRecord, AdjoinError | None, int] | None:
        """The run as it was, why it must not go on, and how many services died soon after they took
        it up."""
        try:
            known, journal = await self._journal.open(id)
        except StateError as error:
            _log.error("run %s is lost: %s", id, error)
            await self._journal.drop(id)
            return None
        accepted = known.accepted
        refused: AdjoinError | None = None
        try:
            deployment = self._deployment(known)
        except AdjoinError as error:
            refused = error
            deployment = _unreadable(accepted)
        if known.suspected >= _DEATHS + _DEATHS_ALONE:
            refused = EngineError(
                f"the service died {known.suspected} times soon after it went on with this run",
                where=f"run {id}",
                hint="it is not tried again; look into the service's log before you send it again",
            )
        record = DurableRecord(deployment, accepted, self._journal, journal)
        self._runs.enter(record)
        return record, refused, known.suspected

    async def _continue(self, record: DurableRecord, refused: AdjoinError | None) -> None:
        """Start it as soon as there is room: it was accepted, so it is not refused for a queue."""
        accepted = record.accepted
        inputs = cast("dict[str, Any]", codec.decode(accepted.inputs))
        purse = None
        while (refused := refused or _why_not(record)) is None and not record.suspended:
            try:
                purse = purse or await self._accounts.purse(
                    record.tenant, record.id, accepted.tokens
                )
                ask = Ask(timeout_s=record.left_s, attended=False, run=record.id, purse=purse)
                admitted = self._runs.admit(record, inputs, ask)
            except (Overloaded, QuotaExceeded):
                await asyncio.sleep(_ROOM_S)
            except AdjoinError as error:
                refused = error
            else:
                self._runs.launch(record, inputs, ask, admitted, streaming=accepted.streaming)
                return
        if refused is not None and not record.suspended:
            await record.refuse(refused)
        self._runs.leave(record)

    async def _clear(self, ids: Sequence[str]) -> None:
        await asyncio.sleep(PROBATION_S)
        try:
            await self._journal.clear(ids)
        except StateError as error:
            _log.error("runs stay under suspicion: %s", error)

    def _deployment(self, known: Known) -> Deployment:
        """The version that a run began with, deployed or not.

        Raises:
            AdjoinError: it cannot be made here.
        """
        accepted = known.accepted
        if accepted.plain:
            return self._models.find(
                accepted.tenant, accepted.workflow, cast("Use", accepted.plain)
            )
        if self._deployments.has(accepted.tenant, accepted.workflow):
            now = self._deployments.find(accepted.tenant, accepted.workflow)
            if now.graph.version == accepted.version:
                return now
        graph = self._read(known)
        limits = Limits(self._settings.serve_concurrency, self._settings.serve_queue)
        return detached(accepted, graph, belonging(graph, accepted.tenant), limits)

    def _read(self, known: Known) -> Graph:
        mine = {
            function.ref: function
            for each in self._deployments.current()
            for function in each.graph.functions
        }

        def resolve(ref: str, digest: str) -> Function:
            if ref in BUILTINS:
                return BUILTINS[ref]
            if ref == COMPLETE.ref:
                return COMPLETE
            if ref in mine:
                return mine[ref]
            raise GraphError(
                f"function {ref!r} of the version that this run began with is not here any more",
                hint="deploy a workflow that has it, then start the service again",
            )

        return from_wire(known.graph, resolve)

    # -- forgotten --

    def follow(self) -> None:
        """Forget what is too old, from now on, until the service ends."""
        self._aside(self._sweep())

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _sweep(self) -> None:
        settings = self._settings
        while True:
            try:
                before = time.time() - settings.run_retention_s
                count = await self._journal.sweep(before, settings.run_retention_bytes)
                if count:
                    _log.info("forgot %d durable runs", count)
            except StateError as error:
                _log.error("nothing is forgotten: %s", error)
            await asyncio.sleep(_SWEEP_S)

    def _aside(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _why_not(record: DurableRecord) -> AdjoinError | None:
    """What keeps a run from going on."""
    if record.cancelled:
        return Cancelled(record.cancelled)
    if record.left_s <= 0:
        return DeadlineExceeded("its time ended before it could go on", where=f"run {record.id}")
    return None


def _fingerprint(record: RunRecord) -> bytes:
    return record.accepted.fingerprint if isinstance(record, DurableRecord | EndedRecord) else b""


def _unreadable(accepted: Accepted) -> Deployment:
    from adjoin.dag import build

    graph = build(accepted.workflow, inputs=(), stages=[], outputs={})
    return detached(accepted, graph, graph, Limits(1, 0))
