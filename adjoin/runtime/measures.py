"""What a run measured, kept until its end, so that learning from it delays nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adjoin.dag import Graph
from adjoin.runtime import protocol as p
from adjoin.runtime.policies.costs import (
    Costs,
    Moved,
    Observation,
    learn,
    learn_inputs,
    learn_link,
    transport_between,
)
from adjoin.runtime.policies.facts import facts_of
from adjoin.runtime.policies.topology import Topology
from adjoin.runtime.sizes import nbytes_of


class Measures:
    """Of one run: sizes of its inputs and results, times of its stages and transfers."""

    def __init__(self, graph: Graph, inputs: Mapping[str, Any]) -> None:
        self._graph = graph
        self.inputs = {name: nbytes_of(value) for name, value in inputs.items()}
        self._done: dict[str, tuple[p.Done, str]] = {}
        self._pulled: list[tuple[p.Pulled, str]] = []

    def done(self, message: p.Done, worker: str) -> None:
        self._done[message.stage] = (message, worker)

    def pulled(self, message: p.Pulled, worker: str) -> None:
        self._pulled.append((message, worker))

    def learned(self, costs: Costs, topology: Topology) -> Costs:
        """The costs after this run."""
        sizes = {f"inputs.{name}": nbytes for name, nbytes in self.inputs.items()}
        sizes |= {stage: done.nbytes for stage, (done, _) in self._done.items()}
        facts = facts_of(self._graph)
        costs = learn_inputs(costs, self._graph, self.inputs)
        for stage, (done, _) in self._done.items():
            if done.skipped or any(root not in sizes for root in facts[stage].roots):
                continue
            taken = sum(sizes[root] for root in facts[stage].roots)
            seen = Observation(stage, taken, done.nbytes, done.usage)
            costs = learn(costs, self._graph, seen)
        for pulled, target in self._pulled:
            if pulled.stage in self._done:
                ends = (self._done[pulled.stage][1], target)
                one, other = map(topology.worker, ends)
                if one is not None and other is not None and one.name != other.name:
                    transport = transport_between(one, other)
                    moved = Moved(one.host, other.host, transport, pulled.nbytes, pulled.seconds)
                    costs = learn_link(costs, moved)
        return costs
