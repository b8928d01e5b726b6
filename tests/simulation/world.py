"""A virtual cluster: the run's state machine and the placement policy, without a shell.

Time is a heap of things to come, chance is one seeded generator. Facts on their way to the driver
may be delayed, repeated and overtaken; workers crash and come back under another name; functions
and engines fail. A seed replays to the letter.
"""

from __future__ import annotations

import functools
import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adjoin import errors
from adjoin.dag import (
    Function,
    Graph,
    Literal,
    Needs,
    Parameter,
    Policy,
    Reference,
    Stage,
    build,
)
from adjoin.runtime import moves as m
from adjoin.runtime.policies.costs import Costs, estimate
from adjoin.runtime.policies.placement import Topology, Worker, plan_of, weigh
from adjoin.runtime.policies.problem import Problem
from adjoin.runtime.policies.search import search
from adjoin.runtime.protocol import Ref, StreamRef, Value
from adjoin.runtime.run import RunState
from adjoin.transport import codec
from adjoin.transport.codec import Encoded
from adjoin.types import Body, StageCompleted, Token, Tokens, Usage, WorkerLost


@dataclass(frozen=True)
class Chance:
    """How bad the weather is; all are probabilities but ``crashes``, the number of crashes."""

    crashes: int = 0
    function_fails: float = 0.0
    engine_fails: float = 0.0
    duplicate: float = 0.0
    large: float = 0.3
    tokens: float = 0.2
    cancel: float = 0.0
    streams: float = 0.0
    scattered: float = 0.0
    dropped: float = 0.5


def random_graph(rng: random.Random, attempts: int = 1, streams: float = 0.0) -> Graph:
    """Up to a dozen stages, each taking up to three earlier results, some with a collection.

    ``streams`` is the share of stages whose results are made, and inputs read, piece by piece.
    """
    functions = [_function(inputs, pinned) for inputs in range(4) for pinned in (False, True)]
    pieces = [_function(inputs, p, True) for inputs in range(4) for p in (False, True)]
    count = rng.randint(1, 12)
    stages: list[Stage] = []
    for number in range(count):
        inputs = rng.sample(range(number), min(number, rng.randint(0, 3)))
        pinned = rng.random() < 0.25
        kinds = pieces if streams and rng.random() < streams else functions
        function = kinds[2 * len(inputs) + pinned]
        bindings: dict[str, Any] = {
            f"a{at}": Reference(f"s{source}") for at, source in enumerate(inputs)
        }
        if pinned:
            bindings["collection"] = Literal(rng.choice("xyz"))
        stages.append(Stage(f"s{number}", function, bindings, Policy(attempts=attempts)))
    taken = {ref.root for s in stages for ref in s.bindings.values() if isinstance(ref, Reference)}
    outputs = {s.id: Reference(s.id) for s in stages if s.id not in taken or rng.random() < 0.1}
    return build("random", inputs=(), stages=stages, outputs=outputs)


def _function(inputs: int, pinned: bool, pieces: bool = False) -> Function:
    names = [f"a{at}" for at in range(inputs)] + (["collection"] if pinned else [])
    name = f"f{inputs}{'p' if pinned else ''}{'s' if pieces else ''}"
    return Function(
        name=name,
        ref=name,
        iterates=frozenset(names[:inputs] if pieces else ()),
        streams="items" if pieces else "",
        parameters=tuple(Parameter(name) for name in names),
        needs=Needs(collection="collection" if pinned else None),
    )


def oracle(graph: Graph) -> dict[str, str]:
    """What each stage returns when nothing goes wrong."""
    values: dict[str, str] = {}
    for stage in graph.stages:
        values[stage.id] = compute(graph, stage.id, values)
    return values


def compute(graph: Graph, stage: str, values: Mapping[str, Any]) -> str:
    inputs = [values[name] for name in sorted(graph.dependencies(stage))]
    return f"{stage}({','.join(inputs)})"


@dataclass
class _Stream:
    """What one attempt of a stage makes; ``outside`` are those elsewhere that have yet to read."""

    ref: StreamRef
    stage: str
    outside: set[str]
    value: Any = None
    ended: bool = False
    broken: bool = False
    dropped: bool = False


@dataclass
class _Segment:
    """A segment at its agent."""

    worker: str
    waiting: dict[str, int]
    exports: tuple[str, ...]
    values: dict[str, Any] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    refs: dict[str, Any] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)
    readers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    made: dict[str, _Stream] = field(default_factory=dict)
    fed: dict[str, StreamRef] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    alive: bool = True


class World:
    """Runs one graph; ``history`` holds every command in order."""

    def __init__(
        self,
        seed: int,
        chance: Chance,
        *,
        attempts: int = 1,
        streaming: bool = False,
        graph: Graph | None = None,
        inputs: Mapping[str, Any] | None = None,
        evaluate: Callable[[Stage, dict[str, Any]], Any] | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.chance = chance
        self.graph = graph or random_graph(self.rng, attempts, chance.streams)
        self.inputs = dict(inputs or {})
        self.evaluate = evaluate or (lambda stage, scope: compute(self.graph, stage.id, scope))
        self.state = RunState("run", self.graph, streaming=streaming)
        self.history: list[m.Command] = []
        self.executed: list[tuple[str, int]] = []
        self.outputs: dict[str, Any] = {}
        self.segments: dict[int, _Segment] = {}
        self.ended: set[int] = set()
        self.broken = 0
        self._workers = ["w0", "w1", "w2"]
        self._born = 3
        self._epoch = 0
        self._now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def run(self, steps: int = 20_000) -> m.End:
        """Play to the end.

        Raises:
            AssertionError: it does not end.
        """
        for _ in range(self.chance.crashes):
            self._later(self.rng.uniform(0, 30), self._crash)
        if self.rng.random() < self.chance.cancel:
            error = errors.Cancelled("by the test")
            self._later(self.rng.uniform(0, 20), lambda: self._tell(m.Stop(error)))
        self._obey(self.state.begin())
        while self._queue and steps:
            steps -= 1
            self._now, _, action = heapq.heappop(self._queue)
            action()
        ends = [command for command in self.history if isinstance(command, m.End)]
        assert len(ends) == 1, f"{len(ends)} ends after {len(self.history)} commands"
        return ends[0]

    # -- the driver's side --

    def _obey(self, commands: list[m.Command]) -> None:
        for command in commands:
            self.history.append(command)
            match command:
                case m.MakePlan(stages, delay):
                    self._later(delay + self._delay(), functools.partial(self._plan, stages))
                case m.OpenSegment():
                    self._open(command)
                case m.FeedSegment():
                    self._later(
                        0,
                        functools.partial(self._feed, command),
                    )
                case m.RetryStage(delay=delay):
                    self._later(delay, functools.partial(self._retry, command))
                case m.CloseSegment(index):
                    self.segments[index].alive = False
                case m.Collect(values):
                    self._later(self._delay(), functools.partial(self._collect, dict(values)))

    def _tell(self, fact: m.Fact) -> None:
        self._obey(self.state.apply(fact))

    def _send(self, fact: m.Fact) -> None:
        """A fact on its way: late, perhaps twice, perhaps overtaken by a later one."""
        for _ in range(2 if self.rng.random() < self.chance.duplicate else 1):
            self._later(self._delay(), lambda: self._tell(fact))

    def _plan(self, stages: frozenset[str]) -> None:
        if not self._workers:
            self._later(1.0, lambda: self._plan(stages))
            return
        workers = tuple(Worker(name=name, address=name, host="h") for name in self._workers)
        topology = Topology(self._epoch, workers)
        if self.rng.random() < self.chance.scattered:
            names = [worker.name for worker in workers]
            where = {name: self.rng.choice(names) for name in sorted(stages)}
            plan = weigh(self.graph, topology, where)
        else:
            # Not the best plan: to look for that would take most of the time of a simulation.
            problem = Problem(self.graph, topology, Costs(), estimate(self.graph, Costs()), stages)
            plan = plan_of(problem, search(problem, nodes=0, effort=100))
        self._send(m.Planned(plan))

    def _collect(self, values: dict[str, m.Outcome]) -> None:
        for stage, value in values.items():
            found = self._resolve(value)
            if found is None:
                self._send(m.ValueLost(stage, m.place_of(value)))
                return
            (self.outputs[stage],) = found
        self._send(m.Collected())

    # -- the agents' side --

    def _open(self, command: m.OpenSegment) -> None:
        index = command.segment
        segment = _Segment(command.worker, dict(command.attempts), command.exports)
        segment.unfinished = set(command.attempts)
        segment.readers = dict(command.readers)
        self.segments[index] = segment
        if command.worker in self._workers:
            self._later(0, lambda: self._start_ready(index))
        else:
            segment.alive = False
            self._send(m.SegmentLost(index, reached=False))

    def _feed(self, feed: m.FeedSegment) -> None:
        index, stage, value = feed.segment, feed.stage, feed.value
        segment = self.segments[index]
        if not segment.alive:
            return
        if isinstance(value, StreamRef):
            segment.fed[stage] = value
            done = self.graph.readers[stage] & segment.attempts.keys() - segment.unfinished
            for reader in done - segment.waiting.keys():
                self._leave(index, reader)
            self._start_ready(index)
            return
        found = self._resolve(value)
        if found is None:
            self._send(m.ValueLost(stage, m.place_of(value)))
            return
        (segment.values[stage],) = found
        if feed.skipped:
            segment.skipped.add(stage)
        self._start_ready(index)

    def _retry(self, command: m.RetryStage) -> None:
        segment, stage = self.segments[command.segment], command.stage
        if segment.alive:
            if stage in segment.made:
                segment.made[stage].broken = True
            segment.unfinished.add(stage)
            segment.readers[stage] = command.readers
            segment.waiting[stage] = command.attempt
            self._start_ready(command.segment)
        elif command.segment in self.ended:
            self._send(m.SegmentLost(command.segment))

    def _start_ready(self, index: int) -> None:
        segment = self.segments[index]
        for stage in list(segment.waiting):
            if segment.alive and all(
                before in segment.values or self._stream(segment, before, stage)
                for before in self.graph.dependencies(stage)
            ):
                attempt = segment.waiting.pop(stage)
                segment.attempts[stage] = attempt
                self._begin_stream(index, stage, attempt)
                self._executing(stage, attempt)
                if self.rng.random() < self.chance.tokens:
                    self._seen(index, stage, attempt, Tokens(tokens=(Token("x"),)))
                self._later(
                    self.rng.expovariate(0.5),
                    functools.partial(self._finish, index, stage, attempt),
                )

    def _executing(self, stage: str, attempt: int) -> None:
        self.executed.append((stage, attempt))

    def _seen(self, index: int, stage: str, attempt: int, body: Body) -> None:
        self._send(m.Seen(index, stage, attempt, body))

    # -- streams: read to their end when the reader ends, or found to be broken then --

    def _begin_stream(self, index: int, stage: str, attempt: int) -> None:
        segment = self.segments[index]
        if not (readers := segment.readers.get(stage)):
            return
        self._count += 1
        ref = StreamRef(id=f"{index}.{stage}.{attempt}.{self._count}", owner=str(index))
        segment.made[stage] = _Stream(ref, stage, set(readers) - set(segment.unfinished))
        self._send(m.Flows(index, stage, attempt, ref))
        self._later(0, lambda: self._start_ready(index))

    def _stream(self, segment: _Segment, before: str, stage: str) -> str:
        """The id of the stream that a stage reads, or nothing."""
        if not self.graph.reads(stage, before):
            return ""
        if before in segment.made:
            return segment.made[before].ref.id
        return segment.fed[before].id if before in segment.fed else ""

    def _lent(self, ref: str) -> _Stream | None:
        owner = self.segments[int(ref.partition(".")[0])]
        found = (made for made in owner.made.values() if made.ref.id == ref)
        return next(found, None) if owner.alive else None

    def _read(self, index: int, stage: str, attempt: int) -> bool:
        """Whether all streams of a stage were read to the end; it waits where they are not."""
        segment = self.segments[index]
        for before in sorted(self.graph.dependencies(stage)):
            if before in segment.values:
                continue
            if not (ref := self._stream(segment, before, stage)):  # another reader found it broken
                segment.waiting[stage] = attempt
                return False
            stream = self._lent(ref)
            if stream is None or stream.broken or stream.dropped:
                self.broken += 1
                (segment.made if before in segment.made else segment.fed).pop(before)
                segment.waiting[stage] = attempt
                self._send(m.ValueLost(before, ref))
                self._start_ready(index)
                return False
            if not stream.ended:
                self._later(1.0, functools.partial(self._finish, index, stage, attempt))
                return False
        return True

    def _leave(self, index: int, reader: str) -> None:
        segment = self.segments[index]
        for before in self.graph.dependencies(reader):
            stream = self._lent(self._stream(segment, before, reader) or "0.")
            if stream is not None:
                stream.outside.discard(reader)
                owner = int(stream.ref.owner)
                self._later(0, functools.partial(self._end_if_done, owner))

    def _end_if_done(self, index: int) -> None:
        segment = self.segments[index]
        lends = any(stream.outside for stream in segment.made.values())
        if segment.alive and not segment.unfinished and not segment.refs and not lends:
            segment.alive = False
            self.ended.add(index)
            self._send(m.SegmentEnded(index))

    def _finish(self, index: int, stage: str, attempt: int) -> None:
        segment = self.segments[index]
        if not segment.alive or segment.attempts.get(stage) != attempt:
            return
        if stage in segment.waiting or not self._read(index, stage, attempt):
            return
        try:
            self._fail_by_chance()
            skipped = self._compute(segment, self.graph.stage(stage))
        except errors.AdjoinError as error:
            if stage in segment.made:
                segment.made[stage].broken = True
            self._send(m.Broke(index, stage, attempt, error))
            return
        leaves = stage in segment.exports or (skipped and stage in segment.readers)
        value = self._export(index, stage) if leaves else None
        if stage in segment.made:
            self._end_stream(segment, stage)
        self._send(m.Finished(index, stage, attempt, Usage(generated=1), value, skipped))
        segment.unfinished.discard(stage)
        self._leave(index, stage)
        self._end_if_done(index)
        self._start_ready(index)

    def _end_stream(self, segment: _Segment, stage: str) -> None:
        stream = segment.made[stage]
        stream.ended, stream.value = True, segment.values[stage]
        if stage in self.graph.passing:
            del segment.values[stage]
            stream.dropped = self.rng.random() < self.chance.dropped * self.chance.crashes / 10

    def _fail_by_chance(self) -> None:
        if self.rng.random() < self.chance.function_fails:
            raise errors.FunctionError("it raised")
        if self.rng.random() < self.chance.engine_fails:
            raise errors.EngineError("it died")

    def _compute(self, segment: _Segment, stage: Stage) -> bool:
        """Evaluate a stage; returns whether it was skipped."""
        scope = {"inputs": self.inputs, **self._streamed(segment, stage.id), **segment.values}
        skipped = stage.skipped_by(frozenset(segment.skipped)) or not stage.should_run(scope)
        segment.values[stage.id] = None if skipped else self.evaluate(stage, scope)
        if skipped:
            segment.skipped.add(stage.id)
        return skipped

    def _streamed(self, segment: _Segment, stage: str) -> dict[str, Any]:
        found = {}
        for before in self.graph.dependencies(stage):
            if stream := self._lent(self._stream(segment, before, stage) or "0."):
                found[before] = stream.value
        return found

    def _export(self, index: int, stage: str) -> Value:
        segment = self.segments[index]
        if self.rng.random() >= self.chance.large:
            return codec.encode(segment.values[stage])
        ref = Ref(id=f"{index}.{stage}.{self._count}", owner=str(index), nbytes=1)
        segment.refs[ref.id] = segment.values[stage]
        return ref

    def _resolve(self, value: m.Outcome | StreamRef) -> tuple[Any] | None:
        """The value, or None when its owner is gone."""
        if isinstance(value, Encoded):
            return (codec.decode(value),)
        assert isinstance(value, Ref)
        owner = self.segments[int(value.owner)]
        return (owner.refs[value.id],) if owner.alive and value.id in owner.refs else None

    def _crash(self) -> None:
        if not self._workers:
            return
        victim = self.rng.choice(self._workers)
        self._workers.remove(victim)
        self._epoch += 1
        for index, segment in self.segments.items():
            if segment.worker == victim and segment.alive:
                segment.alive = False
                self._send(m.SegmentLost(index))
        self._later(self.rng.uniform(0, 5), self._revive)

    def _revive(self) -> None:
        self._workers.append(f"w{self._born}")
        self._born += 1
        self._epoch += 1

    # -- time --

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self._now + delay, self._count, action))

    def _delay(self) -> float:
        return self.rng.choice((0.0, 0.01, 0.1, 1.0, 3.0))


def completed(world: World) -> list[str]:
    """Stages whose completion was announced, in order."""
    return [
        command.stage
        for command in world.history
        if isinstance(command, m.Emit) and isinstance(command.body, StageCompleted)
    ]


def losses(world: World) -> int:
    return sum(
        isinstance(command, m.Emit) and isinstance(command.body, WorkerLost)
        for command in world.history
    )
