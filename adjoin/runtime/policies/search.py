"""Looking for a good placement.

Three first placements: beside the state (every stage on the worker of its nearest stage with state,
breadth first, so that hops count), all on one worker, and earliest finish first (HEFT: Topcuoglu,
Hariri and Wu 2002). The best of them is improved by moving one group of stages, or all from one
worker to another, while that helps; then, where the graph is small, branch and bound over all
placements either finds a better one or proves that there is none among the candidate workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from adjoin.errors import PlanError
from adjoin.runtime.policies.problem import Key, Problem

#: Nodes that branch and bound may visit.
NODES = 4000
#: Stages times placements that improvement may weigh.
EFFORT = 15_000

Found = tuple[Key, list[int]]


def search(problem: Problem, *, nodes: int = NODES, effort: int = EFFORT) -> list[int]:
    """A placement that keeps the constraints; for each stage the position of a worker.

    Raises:
        PlanError: none was found that keeps them; says for which stage.
    """
    candidates = problem.candidates()
    found = [(problem.key(where), where) for where in _first(problem, candidates)]
    best = min(found, default=None)
    if best is not None:
        best = _improved(problem, candidates, best, effort)
    if len(problem.constraints.members) <= nodes.bit_length() * 2:
        best = _Exact(problem, candidates, best, nodes).run()
    if best is None:
        best = _desperate(problem)
    return best[1]


def _first(problem: Problem, candidates: Sequence[int]) -> Iterator[list[int]]:
    wishes = [_beside(problem)]
    wishes += [[worker] * len(problem.stages) for worker in _gathering(problem, candidates)]
    wishes.append([-1] * len(problem.stages))
    for wish in wishes:
        where = _placed(problem, candidates, wish)
        if where is not None:
            yield where


def _gathering(problem: Problem, candidates: Sequence[int]) -> list[int]:
    """Workers on which everything might run: the one with most state, and the hash's choice."""
    held: dict[int, int] = {}
    for names in problem.collections:
        for name in names:
            held[problem.owner(name)] = held.get(problem.owner(name), 0) + 1
    most = sorted(held, key=lambda worker: (-held[worker], worker))[:2]
    return [*most, *candidates[:1]]


def _beside(problem: Problem) -> list[int]:
    """Each stage with state where that is; the others with their nearest; -1 without any near."""
    where = [problem.owner(names[0]) if names else -1 for names in problem.collections]
    queue = deque(stage for stage, worker in enumerate(where) if worker >= 0)
    while queue:
        stage = queue.popleft()
        for neighbour in sorted({*problem.before[stage], *problem.after[stage]}):
            if where[neighbour] < 0:
                where[neighbour] = where[stage]
                queue.append(neighbour)
    if all(worker < 0 for worker in where):
        return where
    # what is connected to no state runs together
    return [worker if worker >= 0 else problem.ranked[0] for worker in where]


def _placed(problem: Problem, candidates: Sequence[int], wish: Sequence[int]) -> list[int] | None:
    """Stage by stage where it is wished, or where it may be and would finish first."""
    rules = problem.constraints
    where = [-1] * len(wish)
    done: list[float] = []
    for stage, wished in enumerate(wish):
        first = rules.group[stage]
        if where[stage] < 0:
            eligible = rules.eligible[first]
            if wished >= 0 and wished in eligible and rules.allows(first, wished, where):
                chosen = wished
            else:
                likely = problem.likely(stage, where, candidates)
                options = _options(problem, stage, likely, where, done)
                options = options or _options(problem, stage, candidates, where, done)
                if not options:
                    return None
                chosen = min(options)[2]
            for member in rules.members[first]:
                where[member] = chosen
        done.append(problem.finish(stage, where[stage], where, done))
    return where


def _options(
    problem: Problem,
    stage: int,
    workers: Sequence[int],
    where: Sequence[int],
    done: Sequence[float],
) -> list[tuple[float, int, int]]:
    """When the stage would be finished on each worker that it may run on; ties in given order."""
    rules = problem.constraints
    first = rules.group[stage]
    return [
        (round(problem.finish(stage, worker, where, done), 6), at, worker)
        for at, worker in enumerate(workers)
        if worker in rules.eligible[first] and rules.allows(first, worker, where)
    ]


def _improved(problem: Problem, candidates: Sequence[int], best: Found, effort: int) -> Found:
    left = max(1, effort // max(1, len(problem.stages)))
    tried = True
    while tried and left > 0:
        tried = False
        for where in _moves(problem, candidates, best[1]):
            left -= 1
            found = (problem.key(where), where)
            if found[0] < best[0]:
                best, tried = found, True
                break
            if left <= 0:
                break
    return best


def _moves(
    problem: Problem, candidates: Sequence[int], where: Sequence[int]
) -> Iterator[list[int]]:
    """Neighbours of a placement: whole workers first, then groups, the critical path's first."""
    rules = problem.constraints
    for source in sorted(set(where)):
        for target in candidates:
            if target != source:
                moved = [target if worker == source else worker for worker in where]
                if rules.hold(moved):
                    yield moved
    path = problem.critical(where)
    order = dict.fromkeys(rules.group[stage] for stage in [*path[::-1], *range(len(where))])
    for first in order:
        near = {where[other] for stage in rules.members[first] for other in problem.before[stage]}
        near |= {where[other] for stage in rules.members[first] for other in problem.after[stage]}
        for target in dict.fromkeys([*sorted(near), *candidates]):
            if target == where[first]:
                continue
            moved = list(where)
            for member in rules.members[first]:
                moved[member] = target
            if rules.hold(moved):
                yield moved


class _Exact:
    """Depth first over the stages in order; a branch ends when it cannot become the best.

    Nothing that comes later changes when a placed stage is finished, so the bound is exact for what
    is placed, and counts only computing for what is not.
    """

    def __init__(
        self, problem: Problem, candidates: Sequence[int], best: Found | None, nodes: int
    ) -> None:
        self.problem = problem
        self.candidates = candidates
        self.best = best
        self.left = nodes
        self.where = [-1] * len(problem.stages)
        self.done: list[float] = []
        self.rest = [0.0] * len(problem.stages)
        for stage in reversed(range(len(self.rest))):
            tails = [
                self.rest[after] + problem.works[after].seconds for after in problem.after[stage]
            ]
            self.rest[stage] = max(tails, default=0.0)

    def run(self) -> Found | None:
        self._place(0, 0.0)
        return self.best

    def _place(self, stage: int, bound: float) -> None:
        self.left -= 1
        if stage == len(self.where):
            found = (self.problem.key(self.where), list(self.where))
            if self.best is None or found[0] < self.best[0]:
                self.best = found
            return
        rules = self.problem.constraints
        first = rules.group[stage]
        fixed = self.where[stage]
        for worker in self.candidates if fixed < 0 else (fixed,):
            if self.left <= 0:
                return
            if fixed < 0 and not (
                worker in rules.eligible[first] and rules.allows(first, worker, self.where)
            ):
                continue
            end = self.problem.finish(stage, worker, self.where, self.done)
            reached = max(bound, end + self.rest[stage])
            if self.best is not None and round(reached, 6) > self.best[0][0]:
                continue
            if fixed < 0:
                for member in rules.members[first]:
                    self.where[member] = worker
            self.done.append(end)
            self._place(stage + 1, reached)
            self.done.pop()
            if fixed < 0:
                for member in rules.members[first]:
                    self.where[member] = -1


def _desperate(problem: Problem) -> Found:
    """The groups with the fewest workers first, on any worker that there is.

    Raises:
        PlanError: one of them finds none.
    """
    rules = problem.constraints
    where = [-1] * len(problem.stages)
    for first in sorted(rules.members, key=lambda each: (len(rules.eligible[each]), each)):
        chosen = next(
            (each for each in rules.eligible[first] if rules.allows(first, each, where)), None
        )
        if chosen is None:
            raise _nowhere(problem, first, where)
        for member in rules.members[first]:
            where[member] = chosen
    return problem.key(where), where


def _nowhere(problem: Problem, first: int, where: Sequence[int]) -> PlanError:
    rules = problem.constraints
    against = sorted(
        problem.stages[other] for other in rules.apart.get(first, ()) if where[other] >= 0
    )
    constraint = "avoid" if against else "resources"
    what = f"avoid {', '.join(against)}" if against else "resources beside the other stages"
    return PlanError(
        f"no worker is left by {what}",
        where=f"stage {problem.stages[first]!r}",
        hint="add workers, or ask for less",
        stage=problem.stages[first],
        constraint=constraint,
    )
