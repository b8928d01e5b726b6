"""The service: one runtime, what is deployed on it, and the runs of its tenants."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from adjoin.dag import Graph
from adjoin.errors import AdjoinError
from adjoin.loading import load_graph, load_text
from adjoin.runtime.database import database_url, open_database
from adjoin.runtime.gateway.accounts import Accounts
from adjoin.runtime.gateway.asks import Ask
from adjoin.runtime.gateway.deployments import Deployment, Deployments
from adjoin.runtime.gateway.durable_runs import DurableRuns
from adjoin.runtime.gateway.gate import Gate
from adjoin.runtime.gateway.idempotency import Durability
from adjoin.runtime.gateway.journal import RunsJournal
from adjoin.runtime.gateway.keys import DEFAULT_TENANT, KeyStore
from adjoin.runtime.gateway.lanes import Lanes
from adjoin.runtime.gateway.metrics import Metrics
from adjoin.runtime.gateway.plain import PlainModels
from adjoin.runtime.gateway.quotas import Quotas
from adjoin.runtime.gateway.records import RunRecord
from adjoin.runtime.gateway.runs import Runs
from adjoin.runtime.gateway.state import SavedWorkflows
from adjoin.runtime.gateway.tenancy import check_models
from adjoin.runtime.gateway.tracing import open_tracing
from adjoin.runtime.policies.admission import Limits
from adjoin.runtime.policies.topology import Topology
from adjoin.runtime.runtime import Runtime
from adjoin.runtime.values import ValueStore
from adjoin.settings import Settings

_ADDITIONS = 2
_WAITING_ADDITIONS = 32
#: For one that ends just now, such as in a restart.
_LEASE_S = 5.0

_log = logging.getLogger("adjoin.gateway")


class Service:
    """What the routes work with. ``runtime`` and ``runs`` are there once it has started."""

    runtime: Runtime
    runs: Runs
    durable: DurableRuns

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = open_database(database_url(settings), check=True)
        self._saved = SavedWorkflows(self.database)
        self.keys = KeyStore(self.database)
        lanes = Lanes(settings, self._topology)
        self.deployments = Deployments(settings, self._saved, lanes)
        self.models = PlainModels(settings, lanes)
        self.quotas = Quotas(settings)
        self.metrics = Metrics(self.deployments)
        self.accounts = Accounts(self.database, settings)
        self.tracing = open_tracing()
        self.searches = Gate(Limits(settings.serve_concurrency, settings.serve_queue))
        #: Each may parse a document in a process of its own.
        self.additions = Gate(Limits(_ADDITIONS, _WAITING_ADDITIONS))
        self.ready = False
        #: Set before the end, so that balancers and clients go elsewhere in time.
        self.leaving = False
        self._end_at = 0.0
        #: What kept the service from starting: an ASGI server only says that something did.
        self.failure: AdjoinError | None = None
        self.on_started: Callable[[], None] = lambda: None

    async def begin(
        self,
        deployment: Deployment,
        inputs: Mapping[str, Any],
        ask: Ask,
        how: Durability | None,
        *,
        streaming: bool = False,
        tokens: int | None = None,
    ) -> RunRecord:
        """Start a run that was asked for, within the budgets there are for it; a durable one when
        it says how. Raises as :meth:`Runs.start` and :meth:`DurableRuns.accept`."""
        if how is not None:
            return await self.durable.accept(deployment, inputs, ask, how, streaming=streaming)
        ask = await self.accounts.funded(ask, deployment.tenant, tokens)
        return self.runs.start(deployment, inputs, streaming=streaming, ask=ask)

    async def start(self, cluster: str | None, files: Sequence[str]) -> None:
        """Start or join the cluster, and deploy what was deployed before and what the operator
        names; a file wins over what is saved under its name.

        Raises:
            AdjoinError: the cluster does not start, or a file is wrong.
        """
        try:
            graphs = [load_graph(file, self.settings) for file in files]
            # Of two services on SQLite one is a mistake; on PostgreSQL it waits to take over.
            await self.database.lead(_LEASE_S if self.database.is_sqlite else None)
            self.runtime = await Runtime.here(cluster, settings=self.settings)
            self.runs = Runs(
                self.runtime.driver, self.deployments, self.settings, self.quotas, self._ended
            )
            self.accounts.start(self.runtime.driver.cluster)
            if self.quotas.by_day:
                self.quotas.go_on(await self.accounts.used_today())
            self._restore()
            for graph in graphs:
                self.deployments.deploy(DEFAULT_TENANT, graph)
            self.durable = self._durable_runs()
            await self.durable.resume()
            self.durable.follow()
        except AdjoinError as error:
            self.failure = error
            raise
        self.ready = True
        self.on_started()

    def leave(self) -> None:
        """Say that the end is near, from when on the time to drain counts; what comes until the
        port is closed is still answered."""
        if not self.leaving:
            self.leaving = True
            self._end_at = time.monotonic() + self.settings.drain_timeout_s

    async def stop(self) -> None:
        """Let the runs end, within the time there is for that; then end the cluster."""
        self.leave()
        self.ready = False
        if hasattr(self, "runs"):
            await self.runs.drain(max(0.0, self._end_at - time.monotonic()))
            if hasattr(self, "durable"):
                await self.durable.close()
            await self.accounts.close()
            await self.runtime.aclose()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
        await asyncio.to_thread(self.database.close)

    def read(self, text: str) -> Graph:
        """The workflow of a text from a caller; it is data, and names only what is allowed.

        Raises:
            DefinitionError: it is wrong, or names a module or a model that is not allowed.
        """
        graph = load_text(text, self.settings)
        check_models(graph, self.settings)
        return graph

    def _restore(self) -> None:
        for saved in self._saved.all():
            try:
                self.deployments.restore(saved, self.read(saved.text))
            except AdjoinError as error:
                # The settings may have changed since; the others are to be served all the same.
                _log.error("workflow %s of %s is not served: %s", saved.name, saved.tenant, error)

    def _durable_runs(self) -> DurableRuns:
        values = ValueStore(self.settings.home / "values")
        journal = RunsJournal(self.database, values, self.settings.inline_bytes)
        return DurableRuns(
            self.runs, journal, self.deployments, self.models, self.accounts, self.settings
        )

    def _topology(self) -> Topology | None:
        return self.runtime.driver.cluster.topology if hasattr(self, "runtime") else None

    def _ended(self, record: RunRecord) -> None:
        self.metrics.ended(record)
        if not record.durable:  # else it was settled as it ended
            self.accounts.ended(record)
        if self.tracing is not None:
            self.tracing.ended(record)


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service
