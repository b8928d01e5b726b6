"""A placement problem in numbers, and what a placement of it costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from adjoin.dag import Graph
from adjoin.runtime.policies.constraints import Constraints
from adjoin.runtime.policies.costs import (
    Costs,
    Terms,
    Work,
    state_seconds,
    transport_between,
)
from adjoin.runtime.policies.facts import facts_of
from adjoin.runtime.policies.topology import Topology, owner_of, weight

#: What it costs to place a stage on a worker that is silent, in seconds: it may never answer, but
#: where it alone has what the stage needs, that is worth waiting for.
DOUBT_S = 2.0
#: Workers beyond those with state that the search looks at, for each demand that keeps stages off.
_SPARE = 4
#: Up to so many workers, all are looked at.
_FEW = 6
#: Of more candidates than this, a stage is tried on those that it may gain from.
_MANY = 16

#: Where each stage is, by positions: in the order of stages, the position of a worker.
Where = Sequence[int]
Key = tuple[float, float, int, int]


class Problem:
    """Stages by position, in topological order. Made once for a plan and not changed."""

    def __init__(
        self,
        graph: Graph,
        topology: Topology,
        costs: Costs,
        works: Mapping[str, Work],
        pending: Collection[str] | None = None,
    ) -> None:
        facts = facts_of(graph)
        self.graph = graph
        self.topology = topology
        self.costs = costs
        self.workers = topology.workers
        self.stages = [s.id for s in graph.stages if pending is None or s.id in pending]
        self.works = [works[id] for id in self.stages]
        at = {id: number for number, id in enumerate(self.stages)}
        self.before = [[at[root] for root in facts[id].roots if root in at] for id in self.stages]
        self.after: list[list[int]] = [[] for _ in self.stages]
        for target, sources in enumerate(self.before):
            for source in sources:
                self.after[source].append(target)
        self.collections = [sorted(facts[id].collections) for id in self.stages]
        self.models = [sorted(facts[id].models) for id in self.stages]
        self.constraints = Constraints(graph, self.stages, topology.workers)
        self.ranked = sorted(
            range(len(self.workers)),
            key=lambda w: (weight(graph.version, self.workers[w]), self.workers[w].name),
            reverse=True,
        )
        self._doubts = [DOUBT_S * worker.suspect for worker in self.workers]
        self._number = {worker.name: at for at, worker in enumerate(self.workers)}
        self._owners: dict[str, int] = {}
        self._state: dict[tuple[str, int], float] = {}
        self._links: dict[tuple[int, int], tuple[float, float]] = {}
        self._cold: dict[tuple[int, str], float] = {}
        self._warm: dict[str, Sequence[int]] = {}
        self._rank = {worker: at for at, worker in enumerate(self.ranked)}

    # -- costs --

    def owner(self, collection: str) -> int:
        if collection not in self._owners:
            owner = owner_of(collection, self.workers)
            self._owners[collection] = self._number[owner.name]
        return self._owners[collection]

    def state(self, stage: int, worker: int) -> float:
        total = self._doubts[worker]
        for name in self.collections[stage]:
            key = (name, worker)
            if key not in self._state:
                owner = self.workers[self.owner(name)].name
                self._state[key] = state_seconds(name, self.workers[worker], self.topology, owner)
            total += self._state[key]
        return total

    def cold(self, stage: int, worker: int) -> float:
        """Seconds from now until the stage's models are loaded there; all load at once."""
        if not self.models[stage]:
            return 0.0
        key = (stage, self.workers[worker].host)
        if key not in self._cold:
            there = self.topology.loaded[key[1]]
            missing = [model for model in self.models[stage] if model not in there]
            self._cold[key] = max(map(self.costs.start, missing), default=0.0)
        return self._cold[key]

    def transport(self, one: int, other: int) -> str:
        return transport_between(self.workers[one], self.workers[other])

    def moving(self, source: int, one: int, other: int) -> float:
        """Seconds to move a stage's result between two workers."""
        if one == other:
            return 0.0
        key = (one, other)
        if key not in self._links:
            ends = (self.workers[one], self.workers[other], self.transport(one, other))
            latency = self.costs.transfer(*ends, 0.0)
            self._links[key] = (latency, self.costs.transfer(*ends, 1e6) / 1e6 - latency / 1e6)
        latency, each = self._links[key]
        return latency + each * self.works[source].bytes_out

    def finish(self, stage: int, worker: int, where: Where, done: Sequence[float]) -> float:
        """When the stage would be finished there, given when and where those before it are."""
        ready = self.cold(stage, worker)
        for source in self.before[stage]:
            there = where[source]
            came = done[source]
            if there != worker:
                came += self.moving(source, there, worker)
            ready = max(ready, came)
        return ready + self.works[stage].seconds + self.state(stage, worker)

    def finishes(self, where: Where) -> list[float]:
        """When each stage is finished, counted from the start of the run."""
        done: list[float] = []
        for stage, worker in enumerate(where):
            done.append(self.finish(stage, worker, where, done))
        return done

    def segments(self, where: Where) -> int:
        """How many segments there are: by worker and number of changes on the way there."""
        changes: list[int] = []
        found = set()
        for stage, worker in enumerate(where):
            most = 0
            for source in self.before[stage]:
                most = max(most, changes[source] + (where[source] != worker))
            changes.append(most)
            found.add((most, worker))
        return len(found)

    def key(self, where: Where) -> Key:
        """What a better placement has less of.

        In this order: seconds, seconds of opening state whether or not a run waits for them,
        segments, distance from the hash's choice. Seconds count in steps of a microsecond: what is
        below is no reason to split a segment.
        """
        last = max(self.finishes(where), default=0.0)
        state = sum(self.state(stage, worker) for stage, worker in enumerate(where))
        ranks = sum(self._rank[worker] for worker in set(where))
        return round(last, 6), round(state, 6), self.segments(where), ranks

    def terms(self, where: Where) -> list[Terms]:
        """The predicted seconds of each stage, by what they are spent on."""
        done = self.finishes(where)
        found = []
        for stage, worker in enumerate(where):
            moved = [
                (done[source] + self.moving(source, where[source], worker), done[source])
                for source in self.before[stage]
            ]
            ready = max((at for at, _ in moved), default=0.0)
            found.append(
                Terms(
                    compute=self.works[stage].seconds,
                    transfer=ready - max((at for _, at in moved), default=0.0),
                    state=self.state(stage, worker),
                    cold=max(0.0, self.cold(stage, worker) - ready),
                )
            )
        return found

    def critical(self, where: Where) -> list[int]:
        """The stages that the last one to finish waited for, in order."""
        done = self.finishes(where)
        if not done:
            return []
        path = [max(range(len(done)), key=done.__getitem__)]
        while self.before[path[-1]]:
            stage = path[-1]
            arrival = {
                source: done[source] + self.moving(source, where[source], where[stage])
                for source in self.before[stage]
            }
            last = max(arrival, key=arrival.__getitem__)
            if self.cold(stage, where[stage]) > arrival[last]:
                break
            path.append(last)
        return path[::-1]

    # -- where to look --

    def candidates(self) -> list[int]:
        """Workers worth a look for any stage, best first by the hash.

        Workers without state differ by nothing but their names: a few of them stand for all.
        """
        if len(self.workers) <= _FEW:
            return list(self.ranked)
        found = dict.fromkeys(self.owner(name) for names in self.collections for name in names)
        for models in self.models:
            found |= dict.fromkeys(worker for model in models for worker in self.warm(model))
        spare = _SPARE + len(self.constraints.apart) + len(self.constraints.rivals)
        classes: dict[int, Sequence[int]] = {
            id(eligible): eligible for eligible in self.constraints.eligible.values()
        }
        for eligible in classes.values():
            allowed = eligible if isinstance(eligible, range) else set(eligible)
            fit = (worker for worker in self.ranked if worker in allowed)
            found |= dict.fromkeys(islice(fit, spare))
        return sorted(found, key=self._rank.__getitem__)

    def warm(self, model: str) -> Sequence[int]:
        """A worker on each of a few hosts that have the model loaded."""
        if model not in self._warm:
            hosts: dict[str, int] = {}
            for worker in self.ranked:
                host = self.workers[worker].host
                if host not in hosts and model in self.topology.loaded[host]:
                    hosts[host] = worker
                    if len(hosts) == _SPARE:
                        break
            self._warm[model] = list(hosts.values())
        return self._warm[model]

    def likely(self, stage: int, where: Where, candidates: Sequence[int]) -> Sequence[int]:
        """Of many candidates those that one stage may gain from: beside its inputs and state."""
        if len(candidates) <= _MANY:
            return candidates
        found = dict.fromkeys(where[source] for source in self.before[stage])
        found |= dict.fromkeys(map(self.owner, self.collections[stage]))
        found |= dict.fromkeys(at for model in self.models[stage] for at in self.warm(model))
        return list(found | dict.fromkeys(candidates[:_SPARE]))
