"""What a run with given inputs will take, before it starts."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from adjoin.dag import Graph
from adjoin.runtime.policies.costs import Costs, Terms, Work, estimate
from adjoin.runtime.policies.placement import Plan


class Prediction(msgspec.Struct, frozen=True):
    """Predicted seconds of each planned stage by term, and what it works on.

    Attributes:
        critical: the stages that decide how long the run takes, in order.
        seconds: from the plan to the end of the last stage.
    """

    terms: Mapping[str, Terms]
    works: Mapping[str, Work]
    critical: tuple[str, ...]
    seconds: float

    @property
    def stages(self) -> dict[str, float]:
        """Seconds from the start of each stage to its end: its inputs are there already."""
        return {
            stage: terms.compute + terms.state + terms.cold for stage, terms in self.terms.items()
        }


def predict(
    graph: Graph, plan: Plan, costs: Costs, inputs: Mapping[str, float] | None = None
) -> Prediction:
    """The prediction for inputs of these sizes in bytes, by name; usual ones where none is given.

    Takes the plan's costs of transfer, state and cold start, and estimates computing anew.
    """
    works = estimate(graph, costs, inputs)
    came: dict[str, list[tuple[float, str]]] = {}
    done: dict[str, float] = {}
    terms: dict[str, Terms] = {}
    last: dict[str, str] = {}
    outgoing: dict[str, list[tuple[str, float]]] = {}
    for edge in plan.edges:
        outgoing.setdefault(edge.source, []).append((edge.target, edge.seconds))
    for stage in (stage.id for stage in graph.stages if stage.id in plan.terms):
        found = msgspec.structs.replace(plan.terms[stage], compute=works[stage].seconds)
        terms[stage] = found
        ready, source = max(came.get(stage, ()), default=(0.0, ""))
        last[stage] = source
        done[stage] = ready + found.compute + found.state + found.cold
        for target, seconds in outgoing.get(stage, ()):
            came.setdefault(target, []).append((done[stage] + seconds, stage))
    path = [max(done, key=done.__getitem__)] if done else []
    while path and last[path[-1]]:
        path.append(last[path[-1]])
    return Prediction(terms, works, tuple(path[::-1]), max(done.values(), default=0.0))
