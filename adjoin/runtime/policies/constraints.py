"""What users demand of the place of a stage: eligible workers, and who must share one or must not.

``resources`` are what a worker must have: ``memory`` in bytes, ``threads``, ``cuda`` devices, and
any other name is one of Dask's abstract resources. Stages of one worker that may run at the same
time need them all at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adjoin.dag import Graph, Stage
from adjoin.dag.demands import neighbours
from adjoin.errors import PlanError
from adjoin.runtime.policies.topology import Worker


class Constraints:
    """Of the stages to place, by their positions; made once for a plan and not changed.

    Attributes:
        group: for each stage the first one that it shares its worker with.
        members: of each group, by that first one.
        apart: for each group, the groups that must not share its worker.
        eligible: for each group the workers it may run on; the same list where nothing is asked.
    """

    def __init__(self, graph: Graph, stages: Sequence[str], workers: Sequence[Worker]) -> None:
        self._graph = graph
        self._stages = stages
        self._workers = workers
        self._at = {id: at for at, id in enumerate(stages)}
        self._needs = [resources_of(graph.stage(id)) for id in stages]
        self.group = self._groups()
        self.members: dict[int, list[int]] = {}
        for at, first in enumerate(self.group):
            self.members.setdefault(first, []).append(at)
        self.apart = self._apart()
        self.rivals = self._rivals()
        self.eligible = self._eligible()
        self._check()

    def allows(self, first: int, worker: int, where: Sequence[int]) -> bool:
        """Whether a group may join a worker, given where (-1: nowhere yet) the others are."""
        if any(where[other] == worker for other in self.apart.get(first, ())):
            return False
        needy = [at for at in self.members[first] if self._needs[at]]
        return all(self._fits(at, worker, where) for at in needy)

    def hold(self, where: Sequence[int]) -> bool:
        """Whether a whole placement keeps everything."""
        return all(where[first] == where[at] for at, first in enumerate(self.group)) and all(
            where[first] in self.eligible[first] and self.allows(first, where[first], where)
            for first in self.members
        )

    def _fits(self, at: int, worker: int, where: Sequence[int]) -> bool:
        """Whether the worker has enough for the stage and all that may run beside it."""
        beside = [
            other
            for other in self.rivals.get(at, ())
            if where[other] == worker or self.group[other] == self.group[at]
        ]
        for name, needed in self._needs[at].items():
            total = needed + sum(self._needs[other].get(name, 0.0) for other in beside)
            if total > amount_of(self._workers[worker], name):
                return False
        return True

    def _groups(self) -> list[int]:
        """Also those that only a stage that is not placed now keeps together."""
        declared = {stage.id: stage.policy.colocate for stage in self._graph.stages}
        together = neighbours(declared)
        first: dict[str, int] = {}
        return [first.setdefault(together[id], at) for at, id in enumerate(self._stages)]

    def _apart(self) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for at, id in enumerate(self._stages):
            for other in self._graph.stage(id).policy.avoid:
                if other in self._at:
                    one, two = self.group[at], self.group[self._at[other]]
                    found.setdefault(one, set()).add(two)
                    found.setdefault(two, set()).add(one)
        return found

    def _rivals(self) -> dict[int, list[int]]:
        """For each stage with needs, those others of them that may run at the same time."""
        needy = [at for at, needs in enumerate(self._needs) if needs]
        if len(needy) < 2:
            return {}
        before: list[int] = []
        for id in self._stages:
            found = 0
            for source in self._graph.dependencies(id):
                if source in self._at:
                    found |= before[self._at[source]] | 1 << self._at[source]
            before.append(found)
        return {
            at: [
                other
                for other in needy
                if other != at and not (before[at] >> other | before[other] >> at) & 1
            ]
            for at in needy
        }

    def _eligible(self) -> dict[int, Sequence[int]]:
        every = range(len(self._workers))
        found: dict[int, Sequence[int]] = {}
        for first, members in self.members.items():
            asking = [at for at in members if self._needs[at] or self._avoided(at)]
            found[first] = every if not asking else self._allowed(first, asking)
        return found

    def _allowed(self, first: int, asking: Sequence[int]) -> list[int]:
        none = [-1] * len(self._stages)
        found: Sequence[int] = range(len(self._workers))
        for at in asking:
            stage, avoided = self._stages[at], self._avoided(at)
            found = [
                worker
                for worker in found
                if self._workers[worker].name not in avoided
                and self._workers[worker].host not in avoided
            ]
            if not found:
                raise _impossible(stage, f"avoid {', '.join(sorted(avoided))}", "avoid")
            found = [worker for worker in found if self._fits(at, worker, none)]
            if not found:
                shown = ", ".join(f"{name} {needed:g}" for name, needed in self._needs[at].items())
                raise _impossible(stage, f"resources {shown}", "resources")
        return list(found)

    def _avoided(self, at: int) -> frozenset[str]:
        stage = self._graph.stage(self._stages[at])
        return avoided_by(stage) - {each.id for each in self._graph.stages}

    def _check(self) -> None:
        for first, others in self.apart.items():
            if first in others:
                raise _impossible(
                    self._stages[first], "colocate and avoid the same stage", "colocate"
                )


def resources_of(stage: Stage) -> Mapping[str, float]:
    """What the stage asks for, or, for a nested workflow, the most that one of its stages does."""
    found = dict(stage.policy.resources)
    if stage.function.graph is not None:
        for inner in stage.function.graph.stages:
            for name, needed in resources_of(inner).items():
                found[name] = max(found.get(name, 0.0), needed)
    return found


def avoided_by(stage: Stage) -> frozenset[str]:
    """Workers and hosts that the stage, or a stage of its nested workflow, must not run on."""
    found = frozenset(stage.policy.avoid)
    if (graph := stage.function.graph) is not None:
        inner = frozenset[str]().union(*(avoided_by(each) for each in graph.stages))
        found |= inner - {each.id for each in graph.stages}
    return found


def amount_of(worker: Worker, name: str) -> float:
    """How much a worker has of a resource; memory that is not known counts as enough."""
    match name:
        case "memory":
            return worker.memory or float("inf")
        case "threads":
            return worker.threads
        case "cuda":
            return len(worker.devices)
    return worker.resources.get(name, 0.0)


def _impossible(stage: str, what: str, constraint: str) -> PlanError:
    return PlanError(
        f"no worker is left by {what}",
        where=f"stage {stage!r}",
        hint="add such a worker, or ask for less",
        stage=stage,
        constraint=constraint,
    )
