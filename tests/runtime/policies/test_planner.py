"""The planner against every placement there is; its demands; its transports; its speed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

import adjoin
from adjoin import functions as fn
from adjoin.dag import Graph, Policy, Reference, Stage, build
from adjoin.errors import GraphError, PlanError
from adjoin.runtime.explain import Explanation
from adjoin.runtime.policies.costs import Costs
from adjoin.runtime.policies.placement import Device, Topology, Worker, place, weigh
from adjoin.runtime.policies.problem import Problem
from adjoin.runtime.policies.search import search
from benchmarks.planner import every, gaps, random_graph, random_topology, random_works


@pytest.mark.parametrize("seed", range(60))
def test_no_placement_of_a_small_graph_is_better(seed: int) -> None:
    rng = random.Random(seed)
    graph = random_graph(rng, rng.randint(2, 5), 2, demands=True)
    topology = random_topology(rng, rng.randint(2, 4), 2, 2)
    problem = Problem(graph, topology, Costs(), random_works(rng, graph))
    best = min((problem.key(where) for where in every(problem)), default=None)
    if best is None:
        with pytest.raises(PlanError):
            search(problem)
        return
    assert problem.key(search(problem))[0] == best[0]
    alone = search(problem, nodes=0)
    assert problem.constraints.hold(alone)


def test_the_heuristic_alone_is_near_the_best_placement() -> None:
    assert gaps(60)["heuristic: mean gap %"] < 5


@pytest.mark.parametrize("seed", range(40))
def test_constraints_hold_in_large_graphs(seed: int) -> None:
    rng = random.Random(seed)
    graph = random_graph(rng, 40, 5, demands=True)
    topology = random_topology(rng, 30, 4, 5)
    plan = place(graph, topology)
    where = plan.placement
    joined = {stage.id: stage.policy.colocate for stage in graph.stages}
    for stage in graph.stages:
        assert all(where[stage.id] == where[other] for other in joined[stage.id])
        assert all(where[stage.id] != where[other] for other in stage.policy.avoid)
    assert place(graph, topology) == plan


def test_a_thousand_stages_on_a_thousand_workers_take_less_than_a_second() -> None:
    rng = random.Random(1)
    graph = random_graph(rng, 1000, 50, demands=False)
    topology = random_topology(rng, 1000, 125, 50)
    place(graph, topology)
    began = time.process_time()
    place(graph, topology)
    assert time.process_time() - began < 1


@adjoin.function
def one(x: int) -> int:
    return x


@adjoin.function
def both(x: int, y: int) -> int:
    return x + y


def pair(**options: object) -> Graph:
    """``left`` and ``right`` of one input, and their sum; the options are of ``right``."""

    @adjoin.workflow
    def made(n: int):  # type: ignore[no-untyped-def]
        left = one(n)
        right = one.options(**options)(n)  # type: ignore[arg-type]
        return both(left, right)

    return made.graph


def workers(count: int, **last: object) -> Topology:
    """Workers of one host; the fields given are of the last."""
    found = [Worker(f"w{n}", f"tcp://{n}", "h") for n in range(count - 1)]
    name = f"w{count - 1}"
    return Topology(1, (*found, Worker(name, f"tcp://{name}", "h", **last)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("demand", "fields"),
    [
        ({"resources": {"memory": "2GB"}}, {"memory": 3_000_000_000}),
        ({"resources": {"threads": 4}}, {"threads": 8}),
        ({"resources": {"cuda": 1}}, {"devices": (Device("0"),)}),
        ({"resources": {"licence": 1}}, {"resources": {"licence": 1.0}}),
        ({"avoid": ["w0", "w1"]}, {}),
    ],
)
def test_a_stage_runs_where_its_demand_is_met(
    demand: dict[str, object], fields: dict[str, object]
) -> None:
    topology = workers(3, **fields)
    if "memory" in fields:  # unknown memory counts as enough
        small = [Worker(f"w{n}", "a", "h", memory=10**9) for n in range(2)]
        topology = Topology(1, (*small, topology.workers[2]))
    graph = pair(**demand)
    assert place(graph, topology).placement["right"] == "w2"
    without = Topology(1, topology.workers[:2])
    with pytest.raises(PlanError) as refused:
        place(graph, without)
    assert refused.value.details["stage"] == "right"
    assert refused.value.details["constraint"] == next(iter(demand))


def test_stages_that_may_run_at_once_need_their_resources_at_once() -> None:
    @adjoin.workflow
    def two(n: int):  # type: ignore[no-untyped-def]
        left = one.options(resources={"cuda": 1})(n)
        right = one.options(resources={"cuda": 1})(n)
        then = one.options(resources={"cuda": 1})(left)
        return both(then, right)

    single = workers(1, devices=(Device("0"),))
    with pytest.raises(PlanError, match=r"resources"):
        place(two.graph, single)
    found = Topology(1, (*single.workers, Worker("x", "x", "h", devices=(Device("1"),))))
    where = place(two.graph, found).placement
    assert where["left"] == where["then"] != where["right"]


def test_avoiding_a_stage_and_being_with_one() -> None:
    where = place(pair(avoid=["left"]), workers(2)).placement
    assert where["left"] != where["right"]
    with pytest.raises(PlanError, match=r"left|right"):
        place(pair(avoid=["left"]), workers(1))
    where = place(pair(colocate="left"), workers(2)).placement
    assert where["left"] == where["right"]


def test_transports_follow_hosts_and_devices() -> None:
    graph = pair(avoid="left")
    gpu = (Device("0"),)
    for hosts, devices, expected in (
        (("h", "h"), ((), ()), "shm"),
        (("h", "i"), (gpu, gpu), "remote"),
        (("h", "h"), (gpu, gpu), "cuda_ipc"),
        (("h", "h"), (gpu, ()), "shm"),
    ):
        pairs = zip("ab", hosts, devices, strict=True)
        found = Topology(1, tuple(Worker(n, n, host, devices=gpus) for n, host, gpus in pairs))
        transports = {edge.transport for edge in place(graph, found).edges}
        assert transports == {"local", expected}


def test_stages_go_to_the_state_they_need() -> None:
    @adjoin.workflow
    def search_(question: str):  # type: ignore[no-untyped-def]
        return fn.retrieve(fn.embed(question, model="m"), collection="c")

    near = Topology(
        1,
        (
            Worker("w0", "a", "h", collections=frozenset("c"), sizes={"c": 10**9}),
            Worker("w1", "b", "h"),
        ),
    )
    assert set(place(search_.graph, near).placement.values()) == {"w0"}


@pytest.mark.parametrize("index_at", ["near", "far"])
def test_the_reasons_of_a_plan_are_what_it_follows(index_at: str) -> None:
    @adjoin.workflow
    def ask(question: str):  # type: ignore[no-untyped-def]
        vector = fn.embed(question, model="minilm")
        passages = fn.retrieve(vector, collection="handbook", k=4)
        return fn.generate(fn.prompt("{{ p }}", p=passages), model="small", max_tokens=64)

    def worker(name: str, models: set[str]) -> Worker:
        holds = name == index_at
        collections = frozenset({"handbook"} if holds else ())
        loaded = frozenset(models | ({"minilm"} if holds else set()))
        return Worker(name, name, name, collections=collections, models=loaded)

    plan = place(ask.graph, Topology(1, (worker("near", {"small"}), worker("far", set()))))
    assert plan.placement["passages"] == plan.placement["vector"] == index_at
    assert plan.reasons["passages"] == "collection 'handbook' is there"
    assert plan.reasons["vector"] == "model 'minilm' is loaded there"
    assert plan.placement["generate"] == "near"
    assert plan.reasons["generate"] == "model 'small' is loaded there"
    carried = sorted(edge.transport for edge in plan.edges)
    assert carried == (["local"] * 3 if index_at == "near" else ["local", "local", "remote"])


def test_what_is_everywhere_is_no_reason() -> None:
    @adjoin.workflow
    def ask(vector: adjoin.Vector):  # type: ignore[no-untyped-def]
        passages = fn.retrieve(vector, collection="handbook", k=4)
        return fn.generate(fn.prompt("{{ p }}", p=passages), model="small", max_tokens=64)

    models = frozenset({"small"})
    held = Worker("b", "b", "h2", collections=frozenset({"handbook"}), models=models)
    plan = place(ask.graph, Topology(1, (Worker("a", "a", "h1", models=models), held)))
    assert set(plan.placement.values()) == {"b"}
    assert plan.reasons["generate"] == "next to 'prompt'"


def test_a_collection_that_is_open_in_two_places_is_in_both() -> None:
    @adjoin.workflow
    def ask(vector: adjoin.Vector):  # type: ignore[no-untyped-def]
        return fn.retrieve(vector, collection="handbook", k=4)

    holds = frozenset({"handbook"})
    topology = Topology(1, tuple(Worker(n, n, n, collections=holds) for n in ("a", "b")))
    for name in ("a", "b"):
        (reason,) = weigh(ask.graph, topology, {"retrieve": name}).reasons.values()
        assert reason == "collection 'handbook' is there"


def test_a_warm_host_is_worth_more_than_the_hash() -> None:
    @adjoin.workflow
    def answer(question: str):  # type: ignore[no-untyped-def]
        return fn.generate(question, model="m")

    cold = tuple(Worker(f"w{n}", f"{n}", f"h{n}") for n in range(4))
    for warm in range(4):
        models = [frozenset("m") if n == warm else frozenset() for n in range(4)]
        found = [
            Worker(w.name, w.address, w.host, models=m) for w, m in zip(cold, models, strict=True)
        ]
        plan = place(answer.graph, Topology(1, tuple(found)))
        assert set(plan.placement.values()) == {f"w{warm}"}
        assert plan.reasons["generate"] == "model 'm' is loaded there"
        assert plan.seconds < 10


def test_what_a_plan_predicts_adds_up() -> None:
    graph = pair(avoid="left")
    plan = place(graph, workers(2))
    path = sum(plan.terms[stage].total for stage in plan.critical)
    assert plan.seconds == pytest.approx(path)
    assert weigh(graph, workers(2), plan.placement).seconds == plan.seconds
    across = [edge for edge in plan.edges if edge.transport == "shm"]
    assert all(edge.seconds > 0 and edge.nbytes > 0 for edge in across)


def test_why_not() -> None:
    graph, topology = pair(avoid="left"), workers(3)
    plan = place(graph, topology)
    explained = Explanation(graph, plan, topology)
    other = explained.why_not(plan.placement["left"], "right")
    assert not other.allowed
    assert "breaks what stages demand" in other.verdict()
    spare = next(w.name for w in topology.workers if w.name not in plan.placement.values())
    moved = explained.why_not(spare, "both")
    assert moved.allowed
    assert moved.seconds >= 0
    assert moved.moved == ("both",)
    same = explained.why_not(plan.placement["both"], "both")
    assert same.seconds == 0
    assert "is planned on" in same.verdict()


def _broken(change: Callable[[], Graph]) -> GraphError:
    with pytest.raises(GraphError) as refused:
        change()
    return refused.value


def test_neighbours_that_cannot_be_are_errors_of_the_graph() -> None:
    assert "names no stage 'lft'" in str(_broken(lambda: pair(colocate="lft")))
    assert "did you mean 'left'?" in str(_broken(lambda: pair(colocate="lft")))
    both_ways = _broken(lambda: pair(colocate="left", avoid="left"))
    assert "must be with 'left' and avoid it" in str(both_ways)
    assert "names the stage itself" in str(_broken(lambda: pair(avoid="right")))


def test_contradictions_across_stages_are_refused() -> None:
    policy = Policy()
    stages = [
        Stage("a", one, {"x": Reference("inputs", ("n",))}, policy),
        Stage("b", one, {"x": Reference("a")}, policy.demanding(colocate="a")),
        Stage("c", one, {"x": Reference("b")}, policy.demanding(colocate="b", avoid="a")),
    ]
    graph = build("g", inputs=pair().inputs, stages=stages, outputs={"out": Reference("c")})
    with pytest.raises(PlanError, match="colocate and avoid"):
        place(graph, workers(3))


def test_what_a_stage_that_is_over_kept_together_stays_together() -> None:
    policy = Policy()
    stages = [
        Stage("a", one, {"x": Reference("inputs", ("n",))}, policy),
        *(
            Stage(id, one, {"x": Reference("a")}, policy.demanding(colocate="a", avoid=avoided))
            for id, avoided in (("b", "w0"), ("c", ("w1", "w2")))
        ),
    ]
    outputs = {"b": Reference("b"), "c": Reference("c")}
    graph = build("g", inputs=pair().inputs, stages=stages, outputs=outputs)
    for again in (frozenset("abc"), frozenset("bc")):
        with pytest.raises(PlanError, match="no worker is left"):
            place(graph, workers(3), again)


def test_a_suspect_worker_is_avoided_except_where_only_it_has_the_state() -> None:
    @adjoin.workflow
    def plain(text: str) -> object:
        return fn.prompt("{{ t }}", t=text)

    @adjoin.workflow
    def stateful(question: str) -> object:
        return fn.retrieve(fn.embed(question, model="m"), collection="c", k=1)

    def worker(name: str, host: str, **about: object) -> Worker:
        return Worker(name, f"tcp://{name}", host, **about)  # type: ignore[arg-type]

    for doubted, other in (("a", "b"), ("b", "a")):
        pair = (worker(doubted, "x", suspect=True), worker(other, "x"))
        plan = place(plain.graph, Topology(1, pair))
        assert set(plan.placement.values()) == {other}
    holder = worker("a", "x", suspect=True, collections=frozenset({"c"}), sizes={"c": 10})
    plan = place(stateful.graph, Topology(1, (holder, worker("b", "y"))))
    found = stateful.graph.stages[-1].id
    assert plan.placement[found] == "a"
    plan = place(stateful.graph, Topology(1, (holder, worker("b", "x"))))
    assert plan.placement[found] == "b"
