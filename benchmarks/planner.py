"""How far is the heuristic from the best placement, and how long does planning take?

Random graphs with collections, models, large and small results and constraints, on random clusters
small enough to try every placement: the predicted latency of the heuristic alone, and of the whole
planner, over that of the best. Then graphs on clusters too large for that.

    python -m benchmarks.planner [--graphs 300]
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Iterator

from adjoin.dag import Function, Graph, Literal, Needs, Parameter, Policy, Reference, Stage, build
from adjoin.runtime.policies.costs import Costs, Work, estimate
from adjoin.runtime.policies.placement import Topology, Worker, place
from adjoin.runtime.policies.problem import Problem
from adjoin.runtime.policies.search import search
from benchmarks.report import arguments, report


def random_graph(rng: random.Random, stages: int, collections: int, *, demands: bool) -> Graph:
    """Stages that take up to three of the ten before them; a quarter use a collection or a model"""
    made: list[Stage] = []
    for number in range(stages):
        near = range(max(0, number - 10), number)
        inputs = rng.sample(near, min(len(near), rng.randint(1, 3)))
        bindings: dict[str, Reference | Literal] = {
            f"a{at}": Reference(f"s{source}") for at, source in enumerate(inputs)
        }
        need = rng.choice(("collection", "model", "", "", "", ""))
        if need:
            bindings[need] = Literal(f"{need}{rng.randrange(collections)}")
        function = Function(
            f"f{len(inputs)}{need}",
            f"f{len(inputs)}{need}",
            tuple(Parameter(name) for name in bindings),
            needs=Needs(**({need: need} if need else {})),
        )
        policy = Policy()
        if demands and number and rng.random() < 0.2:
            other = f"s{rng.randrange(number)}"
            policy = policy.demanding(**{rng.choice(("colocate", "avoid")): other})
        made.append(Stage(f"s{number}", function, bindings, policy))
    taken = {b.root for s in made for b in s.bindings.values() if isinstance(b, Reference)}
    outputs = {s.id: Reference(s.id) for s in made if s.id not in taken}
    return build("random", inputs=(), stages=made, outputs=outputs)


def random_topology(rng: random.Random, workers: int, hosts: int, collections: int) -> Topology:
    holders = {f"collection{n}": rng.randrange(workers) for n in range(collections)}
    return Topology(
        1,
        tuple(
            Worker(
                f"w{n}",
                f"tcp://{n}",
                f"h{n % hosts}",
                collections=frozenset(name for name, at in holders.items() if at == n),
                sizes={name: rng.randrange(10**8) for name, at in holders.items() if at == n},
                models=frozenset(f"model{m}" for m in range(collections) if rng.random() < 0.3),
            )
            for n in range(workers)
        ),
    )


def random_works(rng: random.Random, graph: Graph) -> dict[str, Work]:
    return {
        stage: Work(bytes_in=0, bytes_out=10 ** rng.uniform(1, 9), seconds=10 ** rng.uniform(-4, 0))
        for stage in estimate(graph, Costs())
    }


def every(problem: Problem) -> Iterator[list[int]]:
    """Every placement that keeps the constraints."""
    workers = range(len(problem.workers))
    for where in itertools.product(workers, repeat=len(problem.stages)):
        if problem.constraints.hold(where):
            yield list(where)


def gaps(graphs: int) -> dict[str, float]:
    heuristic, planner = [], []
    for seed in range(graphs):
        rng = random.Random(seed)
        graph = random_graph(rng, rng.randint(2, 6), 3, demands=True)
        topology = random_topology(rng, rng.randint(2, 4), 2, 3)
        works = random_works(rng, graph)
        problem = Problem(graph, topology, Costs(), works)
        best = min((problem.key(where)[0] for where in every(problem)), default=None)
        if best is None:
            continue
        heuristic.append(problem.key(search(problem, nodes=0))[0] / best - 1)
        planner.append(problem.key(search(problem))[0] / best - 1)
    return {
        "placements compared": len(planner),
        "heuristic: mean gap %": 100 * statistics.mean(heuristic),
        "heuristic: largest gap %": 100 * max(heuristic),
        "heuristic: optimal %": 100 * statistics.mean(gap < 1e-6 for gap in heuristic),
        "planner: largest gap %": 100 * max(planner),
    }


def times() -> dict[str, float]:
    found = {}
    for stages, workers in ((6, 4), (30, 30), (1000, 1000)):
        rng = random.Random(1)
        graph = random_graph(rng, stages, 50, demands=stages < 1000)
        topology = random_topology(rng, workers, max(1, workers // 8), 50)
        took = []
        for _ in range(5):
            began = time.perf_counter()
            place(graph, topology)
            took.append(time.perf_counter() - began)
        found[f"{stages} stages, {workers} workers: ms"] = 1e3 * statistics.median(took)
    return found


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--graphs", type=int, default=300)
    options = parser.parse_args()
    report("planner", gaps(50 if options.quick else options.graphs) | times(), file=options.json)


if __name__ == "__main__":
    main()
