"""What is deployed: workflows by tenant and name, each new version beside the runs of the old."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from adjoin.dag import Graph
from adjoin.errors import NotFound, QuotaExceeded
from adjoin.runtime.gateway.gate import Gate
from adjoin.runtime.gateway.lanes import Lanes
from adjoin.runtime.gateway.state import Saved, SavedWorkflows
from adjoin.runtime.gateway.tenancy import belonging
from adjoin.runtime.policies.admission import Limits
from adjoin.settings import Settings


@dataclass(eq=False)
class Deployment:
    """One version of one tenant's workflow.

    Attributes:
        graph: as it was written; its version is what clients see.
        runnable: as it runs, with the tenant's own collections.
        revision: counts the versions of this name, from 1.
        created: seconds since the epoch.
        active: runs that wait or run; one that is replaced or deleted goes when they have ended.
    """

    tenant: str
    graph: Graph
    runnable: Graph
    gate: Gate
    revision: int
    created: float = field(default_factory=time.time)
    active: int = 0
    draining: bool = False

    @property
    def name(self) -> str:
        return self.graph.name


class Deployments:
    """The workflows of all tenants."""

    def __init__(self, settings: Settings, saved: SavedWorkflows, lanes: Lanes) -> None:
        self._settings = settings
        self._lanes = lanes
        self._saved = saved
        self._current: dict[tuple[str, str], Deployment] = {}
        self._draining: set[Deployment] = set()

    def deploy(self, tenant: str, graph: Graph, text: str | None = None) -> tuple[Deployment, bool]:
        """Have new runs of this name run this graph; says whether that is a change.

        Args:
            text: what to deploy again after a restart; None for what the operator names each time.

        Raises:
            InputError: a collection's name cannot be a tenant's.
            QuotaExceeded: the tenant has too many workflows.
        """
        old = self._current.get((tenant, graph.name))
        if old is not None and old.graph == graph:
            self._save(old, text)
            return old, False
        self._check_quota(tenant, new=old is None)
        limits = self._limits(graph)
        new = Deployment(
            tenant=tenant,
            graph=graph,
            runnable=belonging(graph, tenant),
            gate=Gate(limits) if old is None else old.gate,
            revision=1 if old is None else old.revision + 1,
        )
        self._save(new, text)
        self._current[tenant, graph.name] = new
        new.gate.lane = self._lanes.of(new.runnable)
        new.gate.resize(limits)
        if old is not None:
            self._retire(old)
        return new, True

    def restore(self, saved: Saved, graph: Graph) -> None:
        """Deploy what was deployed before, as the revision that it was."""
        restored, _ = self.deploy(saved.tenant, graph)
        restored.revision, restored.created = saved.revision, saved.created

    def find(self, tenant: str, name: str) -> Deployment:
        """The current version; raises :class:`NotFound`, also for what is another tenant's."""
        try:
            return self._current[tenant, name]
        except KeyError:
            raise NotFound(f"there is no workflow {name[:80]!r}", hint="deploy it first") from None

    def has(self, tenant: str, name: str) -> bool:
        return (tenant, name) in self._current

    def of(self, tenant: str) -> list[Deployment]:
        """The current versions, and older ones that still have runs."""
        found = [*self._current.values(), *self._draining]
        mine = [each for each in found if each.tenant == tenant]
        return sorted(mine, key=lambda each: (each.name, -each.revision, each.draining))

    def current(self) -> list[Deployment]:
        """The current versions of all tenants."""
        return list(self._current.values())

    def delete(self, tenant: str, name: str) -> Deployment:
        """No new runs; those that were accepted go on. Raises :class:`NotFound`."""
        found = self.find(tenant, name)
        self._saved.delete(tenant, name)
        del self._current[tenant, name]
        self._retire(found)
        return found

    def entered(self, deployment: Deployment) -> None:
        deployment.active += 1

    def left(self, deployment: Deployment) -> None:
        deployment.active -= 1
        if not deployment.active:
            self._draining.discard(deployment)

    def _save(self, deployed: Deployment, text: str | None) -> None:
        if text is not None:
            tenant, name = deployed.tenant, deployed.name
            self._saved.put(Saved(tenant, name, deployed.revision, deployed.created, text))

    def _retire(self, old: Deployment) -> None:
        old.draining = True
        if old.active:
            self._draining.add(old)

    def _check_quota(self, tenant: str, *, new: bool) -> None:
        count = sum(owner == tenant for owner, _ in self._current)
        if new and count >= self._settings.max_workflows:
            raise QuotaExceeded(
                f"there are {count} workflows, the most is {self._settings.max_workflows}",
                hint="delete one",
            )

    def _limits(self, graph: Graph) -> Limits:
        serve = graph.serve
        return Limits(
            concurrency=serve.concurrency or self._settings.serve_concurrency,
            queue=self._settings.serve_queue if serve.queue is None else serve.queue,
            # Who says how many may wait wants them to.
            patience=(self._settings.serve_patience or None) if serve.queue is None else None,
        )
