"""Does a placement that is predicted to take longer take longer?

Cases are drawn by seed: a workflow that embeds a question, searches a collection, and passes values
of up to 16 MB through stages that compute, copy or shrink them; some generate, too. Each case has
two placements: what the planner chose and what ``explain --why-not`` says about one stage, or
all, on the other worker; or, in every other case, two placements drawn at random. Costs are learned
first, from other workflows of the same kind and from the first placement of the case. The
prediction is made before the second placement has ever run. Then both run in turn, either first in
every other pair, kept where they should be by ``avoid``, and the sign of the median of the
differences, pair by pair, is compared with the prediction's. Where a search is moved, each pair has
a collection of its own, which is not open there yet, and both placements are timed the first time
they run. Pairs are measured until a sign test is sure of the sign, or four times ``--repeats``.
Placements whose predicted times do not differ are not drawn.

    python -m benchmarks.why_not [--cases 20] [--seed 1] [--repeats 15] [--json FILE]
"""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import adjoin
from adjoin import functions as fn
from adjoin.dag import Graph, ModelSpec, Stage
from adjoin.evaluation.statistics import mcnemar
from adjoin.runtime.explain import Explanation
from adjoin.runtime.policies.placement import owner_of, weigh
from adjoin.settings import Settings
from benchmarks.report import arguments, report

MODEL = ModelSpec("smollm2-135m", args={"max_model_len": 512})
TEXTS = [f"Note {n}: the mill by the river counted {n} boats before the winter." for n in range(40)]
#: How long the costs of a case are learned from its first placement.
_LEARNED_S = 0.6
#: A sign is sure when chance gives it this rarely; so many times the pairs are measured for that.
_SURE, _MORE = 0.02, 4
#: Predictions that differ by less say nothing about the sign; in seconds.
_SAME = 1e-5


@adjoin.function
def expand(value: Any, size: int) -> adjoin.Vector:
    """So many bytes of it."""
    return np.full(size // 4, len(value), dtype=np.float32)


@adjoin.function
def copy(value: Any) -> adjoin.Vector:
    return np.array(value, dtype=np.float32)


@adjoin.function
def crunch(value: Any) -> adjoin.Vector:
    """Some milliseconds of one core, whatever it takes; a small result."""
    found = np.ones((96, 96), dtype=np.float32)
    for _ in range(150):
        found = found @ found / np.float32(96)
    return found[0]


@adjoin.function
def shrink(value: Any) -> adjoin.Vector:
    """Reads every byte."""
    flat = np.asarray(value, dtype=np.float32).reshape(-1)
    return np.array([flat.sum(), len(flat)], dtype=np.float32)


@adjoin.function
def measure(values: list[Any]) -> int:
    return sum(map(len, values))


@dataclass(frozen=True)
class Draft:
    """A workflow before it is one: for each array stage its kind, what it takes, and a size."""

    works: tuple[tuple[str, int, int], ...]
    generates: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Draft:
        works = []
        for number in range(rng.randint(2, 5)):
            kind = "expand" if number == 0 else rng.choice(("expand", "copy", "crunch", "shrink"))
            taken = rng.randrange(number) if number else -1
            works.append((kind, taken, 4 * round(10 ** rng.uniform(3, 6.6))))
        return cls(tuple(works), rng.random() < 0.2)

    def graph(self, collection: str) -> Graph:
        @adjoin.workflow(models={"small": MODEL})
        def flow(question: str):  # type: ignore[no-untyped-def]
            vector = fn.embed(question, model="minilm")
            passages = fn.retrieve(vector, collection=collection, k=4)
            made: list[Any] = []
            for number, (kind, taken, size) in enumerate(self.works):
                value = made[taken] if taken >= 0 else passages
                use = {"expand": expand, "copy": copy, "crunch": crunch, "shrink": shrink}[kind]
                use_here = use.options(id=f"{kind}_{number}")
                made.append(use_here(value, size) if kind == "expand" else use_here(value))
            takers = {taken for _, taken, _ in self.works}
            ends = [value for at, value in enumerate(made) if at not in takers]
            if self.generates:
                prompt = fn.prompt("{{ p[0].text }} {{ q }}", p=passages, q=question)
                ends.append(fn.generate(prompt, model="small", max_tokens=4))
            return measure(ends)

        return flow.graph


@dataclass(frozen=True)
class Case:
    """Two placements of a workflow, and how they were come by."""

    draft: Draft
    how: str
    moved: str
    base: Mapping[str, str]
    other: Mapping[str, str]

    @property
    def moves_search(self) -> bool:
        return self.base["passages"] != self.other["passages"]


class Bench:
    """Draws, predicts and measures cases on one runtime."""

    def __init__(self, runtime: adjoin.Runtime, rng: random.Random, repeats: int) -> None:
        self._runtime = runtime
        self._rng = rng
        self._repeats = repeats
        self._topology = runtime.explain(crunching).topology
        self._workers = [worker.name for worker in self._topology.workers]
        self._names = (f"notes-{number}" for number in itertools.count())

    def collection(self, worker: str) -> str:
        """A new one, open on that worker only."""
        homes = ((name, owner_of(name, self._topology.workers).name) for name in self._names)
        name = next(name for name, home in homes if home == worker)
        self._runtime.collection(name, embedding="minilm").add_texts(TEXTS)
        while not any(name in each["collections"] for each in self._runtime.status()["workers"]):
            time.sleep(0.01)  # news of it comes after the answer
        return name

    def learn(self, workflows: int) -> None:
        """Run other workflows, each in several random placements."""
        shared = self.collection(self._workers[0])
        for _ in range(workflows):
            graph = Draft.draw(self._rng).graph(shared)
            for _ in range(4):
                self._run(pinned(graph, self._anywhere(graph), self._workers))

    def result(self, number: int) -> dict[str, Any]:
        """Predicted and measured difference of one case, in milliseconds."""
        draw = self._planned if number % 2 == 0 else self._random
        while True:
            case, predicted = draw(Draft.draw(self._rng))
            if abs(predicted) >= _SAME:
                break
        pairs = self._measured(case)
        differences = [other - base for base, other in pairs]
        measured = statistics.median(differences)
        return {
            "case": number + 1,
            "placements": case.how,
            "moved": case.moved,
            "stages": len(case.base),
            "base ms": 1e3 * statistics.median(base for base, _ in pairs),
            "predicted ms": 1e3 * predicted,
            "measured ms": 1e3 * measured,
            "pairs": len(pairs),
            "that agree": sum((each > 0) == (predicted > 0) for each in differences),
            "sure": _chance(differences) <= _SURE,
            "agrees": (measured > 0) == (predicted > 0),
        }

    def _planned(self, draft: Draft) -> tuple[Case, float]:
        graph = draft.graph(self.collection(self._rng.choice(self._workers)))
        self._learn_from(graph)
        worker = self._rng.choice(self._workers)
        stage = self._rng.choice([None, *(each.id for each in graph.stages)])
        found = self._runtime.explain(graph).why_not(worker, stage)
        moved = f"{stage or 'all'} to {worker}"
        base, other = found.planned.placement, found.other.placement
        return Case(draft, "plan, why-not", moved, base, other), found.seconds

    def _random(self, draft: Draft) -> tuple[Case, float]:
        base, other = (self._anywhere(draft.graph("none")) for _ in range(2))
        graph = draft.graph(self.collection(base["passages"]))
        self._learn_from(pinned(graph, base, self._workers))
        explained = self._runtime.explain(graph)
        seconds = _predicted(explained, other) - _predicted(explained, base)
        moved = f"{sum(base[each] != other[each] for each in base)} stages"
        return Case(draft, "random, random", moved, base, other), seconds

    def _measured(self, case: Case) -> list[tuple[float, float]]:
        """Seconds of both placements, in turn."""
        found = []
        home = case.base["passages"]
        shared = self.collection(home)
        for repeat in range(_MORE * self._repeats):
            graph = case.draft.graph(self.collection(home) if case.moves_search else shared)
            base, other = (pinned(graph, each, self._workers) for each in (case.base, case.other))
            if not case.moves_search:
                # both workers know both workflows when they are timed; otherwise neither does
                self._run(base)
                self._run(other)
            if repeat % 2:  # what comes first is slower, whichever it is
                later = self._run(other)
                found.append((self._run(base), later))
            else:
                found.append((self._run(base), self._run(other)))
            differences = [other - base for base, other in found]
            if len(found) >= self._repeats and _chance(differences) <= _SURE:
                break
        return found

    def _learn_from(self, graph: Graph) -> None:
        end = time.perf_counter() + _LEARNED_S
        while time.perf_counter() < end:
            self._run(graph)

    def _anywhere(self, graph: Graph) -> dict[str, str]:
        return {stage.id: self._rng.choice(self._workers) for stage in graph.stages}

    def _run(self, graph: Graph) -> float:
        began = time.perf_counter()
        self._runtime.run(graph, question="How many boats were there before the winter?")
        return time.perf_counter() - began


@adjoin.workflow
def crunching(n: int):  # type: ignore[no-untyped-def]
    return crunch(n)


def _chance(differences: Sequence[float]) -> float:
    """How likely so many of one sign are, or more, if both are equally likely."""
    longer = sum(each > 0 for each in differences)
    return mcnemar(longer, len(differences) - longer)


def _predicted(explained: Explanation, placement: Mapping[str, str]) -> float:
    return weigh(explained.graph, explained.topology, placement, explained.costs).seconds


def pinned(graph: Graph, places: Mapping[str, str], workers: Sequence[str]) -> Graph:
    """The workflow with each stage kept on its worker by avoiding the others."""

    def kept(stage: Stage) -> Stage:
        others = tuple(name for name in workers if name != places[stage.id])
        return replace(stage, policy=msgspec.structs.replace(stage.policy, avoid=others))

    return replace(graph, stages=tuple(map(kept, graph.stages)))


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    cases, repeats = (4, 5) if options.quick else (options.cases, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "models").symlink_to(Settings.load().home.absolute() / "models")
        with adjoin.Runtime(settings=Settings.load(home=Path(folder), workers=2)) as runtime:
            bench = Bench(runtime, random.Random(options.seed), repeats)
            bench.learn(3 if options.quick else 12)
            rows = [bench.result(number) for number in range(cases)]
    figures = {
        "seed": options.seed,
        "cases": len(rows),
        "sign agrees": sum(row["agrees"] for row in rows),
        "sign measured for sure": sum(row["sure"] for row in rows),
        "sign agrees, of those": sum(row["sure"] and row["agrees"] for row in rows),
        "of plans: sign agrees": sum(row["agrees"] for row in rows[::2]),
        "of plans: measured for sure": sum(row["sure"] for row in rows[::2]),
        "of plans: sign agrees, of those": sum(row["sure"] and row["agrees"] for row in rows[::2]),
    }
    report("predicted against measured differences", figures, file=options.json, rows=rows)


if __name__ == "__main__":
    main()
