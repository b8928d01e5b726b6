"""One run as a state machine: facts in, commands out.

:class:`RunState` knows which stage is where, what is recorded, and what to do about a failure. It
has no clock, socket or Dask: the driver feeds it facts from agents and carries out its commands;
the simulation does the same with a virtual cluster.

What it guarantees, whatever the order, repetition or loss of facts:

* a stage's result is recorded once, from the attempt that is current (fencing);
* a stage starts only when all its inputs are recorded or made in its own segment, or flow to it;
* attempts are bounded, and a stage whose tokens a reader has seen is never started over;
* exactly one :class:`End` is commanded, and every segment opened before it is closed.

A **durable** run commands, too, that each result is recorded in a journal, in an order in which no
result comes before those it was made of. A result that is on its way there is neither lost nor made
again before it is known whether the journal has it. A run can begin with what a journal has of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from adjoin import errors
from adjoin.dag import Graph
from adjoin.errors import AdjoinError, EngineError, StageError
from adjoin.runtime.moves import (
    Announce,
    Broke,
    CloseSegment,
    Collect,
    Collected,
    Command,
    Emit,
    End,
    Fact,
    FeedSegment,
    Finished,
    Flows,
    MakePlan,
    OpenSegment,
    Past,
    Planned,
    Record,
    Recorded,
    RecordFailed,
    RetryStage,
    Seen,
    SegmentEnded,
    SegmentLost,
    Stop,
    Stored,
    ValueLost,
    place_of,
)
from adjoin.runtime.policies.billing import Billed, StageEnd, billed
from adjoin.runtime.policies.retry import (
    INFRASTRUCTURE_ATTEMPTS,
    MOST_DEATHS,
    MOST_MISSES,
    delay_before,
    may_retry,
)
from adjoin.runtime.progress import Progress, SegmentRecord, Status
from adjoin.runtime.protocol import StreamRef
from adjoin.types import (
    Body,
    RunCancelled,
    RunFailed,
    StageCompleted,
    StageFailed,
    StageSkipped,
    StageWarning,
    Tokens,
    Usage,
    WorkerLost,
)

#: More than a stage can have in one life: its policy's, those lost with workers, and misses.
ATTEMPTS_OF_A_LIFE = 100


class RunState:
    """The state of one run.

    Args:
        streaming: a reader sees tokens as they come, so a stage that sent some is not retried.
        spend: asked before a retry: whether the workflow may still have one.
        past: what the journal has of a durable run; None of one that keeps no journal.
    """

    def __init__(
        self,
        run: str,
        graph: Graph,
        *,
        streaming: bool = False,
        spend: Callable[[], bool] = lambda: True,
        past: Past | None = None,
    ) -> None:
        self.run = run
        self.ended = False
        self._graph = graph
        self._streaming = streaming
        self._spend = spend
        self._durable = past is not None
        self._past = past or Past()
        self._before = self._past.life * ATTEMPTS_OF_A_LIFE
        self._collecting = False
        self._known = Progress(graph, durable=self._durable, before=self._before)
        self._stages, self._segments = self._known.stages, self._known.segments
        self._lost_streams: set[str] = set()
        self._out: list[Command] = []

    def begin(self) -> list[Command]:
        """The first commands of the run."""
        self._out = []
        self._remember()
        waiting = {n for n, s in self._stages.items() if s.status is Status.WAITING}
        if self._streaming and (cut := sorted(waiting & self._past.shown)):
            self._give_up(cut[0], "what it was sending was lost with the service")
        elif waiting:
            self._out.append(MakePlan(frozenset(waiting)))
        else:
            self._advance()
        return self._out

    def _remember(self) -> None:
        """Take up what is recorded; what nobody can be given, and somebody needs, is made again."""
        for name, stage in self._stages.items():
            stage.attempt = self._before
            if (result := self._past.results.get(name)) is not None:
                stage.status = Status.DONE
                stage.attempt = result.attempt
                stage.usage, stage.value = result.usage, result.value
                stage.skipped = result.skipped
        for name in reversed(self._stages):  # those that need come before what they need
            stage = self._stages[name]
            if stage.status is Status.DONE and stage.value is None and self._known.needed(name):
                stage.status = Status.WAITING
                stage.attempt = self._before
                stage.usage = Usage()

    def apply(self, fact: Fact) -> list[Command]:
        """Take a fact, return what to do now. Facts that are late or repeated change nothing."""
        if self.ended:
            return []
        self._out = []
        match fact:
            case Planned():
                self._planned(fact)
            case Seen(segment, stage, attempt):
                if self._known.current(segment, stage, attempt):
                    self._seen(fact)
            case Flows(segment, stage, attempt):
                if self._known.current(segment, stage, attempt, ended=True):
                    self._flows(fact)
            case Finished(segment, stage, attempt):
                if self._known.current(segment, stage, attempt):
                    self._finished(fact)
            case Broke(segment, stage, attempt, error):
                if self._known.current(segment, stage, attempt):
                    self._broke(stage, error)
            case SegmentLost(segment, reached):
                self._segment_lost(segment, reached)
            case SegmentEnded(segment):
                self._segment_ended(segment)
            case ValueLost(stage, ref):
                self._value_lost(stage, ref)
            case Recorded(stage, attempt):
                if self._known.recording(stage, attempt):
                    self._has_recorded(fact)
            case RecordFailed(stage, attempt):
                if self._known.recording(stage, attempt):
                    self._record_failed(stage)
            case Collected():
                if self._collecting:
                    self._end(None)
            case Stop(error):
                self._end(error)
        return self._out

    def billed(self, error: AdjoinError | None) -> dict[str, Billed]:
        """By stage, the attempt that is billed when the run ends with this: see :mod:`.billing`."""
        seen = {
            name: StageEnd(
                stage.attempt, stage.status is Status.DONE, stage.tokens_seen, stage.usage.seconds
            )
            for name, stage in self._stages.items()
        }
        return billed(seen, error, streaming=self._streaming)

    @property
    def recorded(self) -> frozenset[str]:
        """The stages whose results are there when the run begins."""
        return frozenset(self._past.results)

    # -- reactions --

    def _planned(self, fact: Planned) -> None:
        for segment in fact.plan.segments:
            stages = tuple(
                stage for stage in segment.stages if self._stages[stage].status is Status.WAITING
            )
            if not stages:
                continue
            self._segments.append(SegmentRecord(segment.worker, stages))
            for name in stages:
                stage = self._stages[name]
                stage.status = Status.PLACED
                stage.segment = len(self._segments) - 1
        self._advance()
        self._out.append(Announce(fact.plan))

    def _seen(self, fact: Seen) -> None:
        stage = self._stages[fact.stage]
        if isinstance(fact.body, Tokens):
            stage.tokens_seen = True
        elif isinstance(fact.body, StageWarning):
            if fact.body.where in stage.warned:
                return
            stage.warned.add(fact.body.where)
        self._emit(fact.body, fact.place or fact.stage, fact.tries or fact.attempt, fact.at)

    def _flows(self, fact: Flows) -> None:
        stage = self._stages[fact.stage]
        stage.stream = fact.ref
        if fact.ref.id in self._lost_streams:
            self._stream_lost(fact.stage)
            return
        waits = fact.stage in self._graph.passing and stage.status is Status.OPEN
        if waits and stage.attempt - self._before > 1 and not self._known.readers(fact.stage):
            self._retry(fact.stage)  # its reader ended meanwhile, and would never read this one
        self._advance()

    def _finished(self, fact: Finished) -> None:
        stage = self._stages[fact.stage]
        stage.status = Status.DONE
        stage.usage = fact.usage
        stage.value = fact.value
        stage.skipped = fact.skipped
        if self._durable:
            stage.recording, stage.asked, stage.finished = True, False, fact.at
            self._record()
        else:
            self._done(fact.stage, fact.at)
        if not self._segments[stage.segment].open:  # the news of its end came first
            self._segment_ended(stage.segment)
        self._advance()

    def _done(self, name: str, at: float | None) -> None:
        stage = self._stages[name]
        worker = self._segments[stage.segment].worker
        body = StageSkipped() if stage.skipped else StageCompleted(worker=worker, usage=stage.usage)
        self._emit(body, name, stage.attempt, at)

    def _record(self) -> None:
        """Have recorded what is done, once all it was made of comes before it: who reads a stream
        may be done before the stage that makes it."""
        for name, stage in self._stages.items():
            if (
                stage.recording
                and not stage.asked
                and all(map(self._known.asked, self._graph.dependencies(name)))
            ):
                stage.asked = True
                value = None if isinstance(stage.value, Stored) else stage.value
                record = Record(name, stage.attempt, stage.usage, value, stage.skipped)
                self._out.append(record)

    def _record_failed(self, name: str) -> None:
        stage = self._stages[name]
        stage.recording = stage.lost = False
        self._start_over([], [name], "its result was lost")
        if stage.status is Status.DONE and not self.ended:  # nobody needs it
            self._done(name, stage.finished)
            self._advance()

    def _has_recorded(self, fact: Recorded) -> None:
        stage = self._stages[fact.stage]
        stage.recording = stage.lost = False
        if fact.value is not None:
            stage.former, stage.value = place_of(stage.value), fact.value
        self._done(fact.stage, stage.finished)
        self._advance()

    def _broke(self, name: str, error: AdjoinError) -> None:
        stage = self._stages[name]
        attempts = self._graph.stage(name).policy.attempts
        seen = self._streaming and stage.tokens_seen
        tries = stage.attempt - self._before
        again = may_retry(error, tries, attempts, tokens_seen=seen)
        if not again or not self._spend():
            self._emit(StageFailed(error=errors.to_wire(error)), name, stage.attempt)
            self._end(StageError.of(self.run, name, stage.attempt, error, tries=tries))
            return
        self._emit(StageFailed(error=errors.to_wire(error), retry=True), name, stage.attempt)
        self._retry(name, delay_before(tries + 1))

    def _retry(self, name: str, delay: float = 0.0) -> None:
        """Another attempt where it is. What reads its stream waits there for the new one."""
        stage = self._stages[name]
        stage.attempt += 1
        stage.tokens_seen = False
        stage.stream = None
        readers = self._known.readers(name)
        self._out.append(RetryStage(stage.segment, name, stage.attempt, delay, readers))

    def _segment_lost(self, index: int, reached: bool) -> None:
        segment = self._segments[index]
        running = [n for n in segment.stages if self._known.holds(n, index, Status.OPEN)]
        # One that has ended is lost when another attempt of a stage had crossed with its end.
        if not segment.open and not running:
            return
        for name in running if reached else ():
            self._stages[name].deaths += self._known.may_have_begun(name)
        segment.open = False
        gone = [n for n in segment.stages if self._known.holds(n, index, Status.DONE)]
        lost = [n for n in gone if not self._known.recorded(n)]
        self._out.append(CloseSegment(index))
        self._emit(WorkerLost(worker=segment.worker, stages=tuple(sorted(running))))
        self._start_over(running, lost, f"worker {segment.worker} was lost", reached)

    def _segment_ended(self, index: int) -> None:
        """All is done there, and was read. Who read it may have been lost since."""
        self._segments[index].open = False
        again = {n for n, s in self._stages.items() if s.status in (Status.WAITING, Status.PLACED)}
        gone = [
            name
            for name in self._known.unreachable(again)
            if self._stages[name].segment == index and self._stages[name].stream is not None
        ]
        self._start_over([], gone, "its stream was lost", reached=False)

    def _value_lost(self, name: str, ref: str) -> None:
        stage = self._stages[name]
        self._lost_streams.add(ref)  # its beginning may be heard of later
        if stage.stream is not None and stage.stream.id == ref:
            self._stream_lost(name)
        elif stage.status is Status.DONE and place_of(stage.value) == ref:
            if stage.recording:
                stage.lost = True
                self._known.unfeed(name)  # who needs it gets what is recorded
            else:
                self._start_over([], [name], "its result was lost")
        elif stage.status is Status.DONE and ref == stage.former:
            self._known.unfeed(name)  # who was sent there is sent what is recorded
            self._advance()

    def _stream_lost(self, name: str) -> None:
        """A reader has to begin again, and cannot: its pieces are dropped, or their owner gone."""
        stage = self._stages[name]
        stage.stream = None
        if stage.status is Status.DONE and stage.value is not None:
            self._advance()  # who read it gets it as a whole
        elif stage.status is Status.DONE:
            self._start_over([], [name], "its stream was lost", reached=False)
        elif stage.status is Status.OPEN:
            stage.misses += 1  # if a worker was lost, that is counted when it is noticed
            if self._exhausted(name):
                self._give_up(name, "its stream was lost")
            else:
                self._retry(name)

    def _start_over(
        self, running: Iterable[str], lost: Iterable[str], why: str, reached: bool = True
    ) -> None:
        """Place again what ran, and of the results that are gone those that are still needed."""
        again = set(running)
        for name in again:
            self._known.reset(name, reached)
        candidates = set(lost) | self._known.unreachable(again)
        while needed := self._known.ties(again) | {
            name for name in candidates if self._known.needed(name)
        }:
            for name in needed:
                self._known.reset(name, reached)
            again |= needed
            candidates -= needed
            candidates |= self._known.unreachable(needed)
        if not again:
            return
        self._collecting = False
        exhausted = sorted(name for name in again if self._exhausted(name))
        if exhausted:
            deaths = max(self._stages[name].deaths for name in exhausted)
            self._give_up(next(n for n in exhausted if self._stages[n].deaths == deaths), why)
            return
        for name in again:
            self._stages[name].tokens_seen = False
        misses = max(self._stages[name].misses for name in again)
        self._out.append(MakePlan(frozenset(again), delay_before(misses + 1) if misses else 0.0))

    def _give_up(self, name: str, why: str) -> None:
        stage = self._stages[name]
        hint = "run it again"
        if stage.deaths >= MOST_DEATHS:
            why = f"{why}, as {stage.deaths} were while it ran"
            hint = "see whether what it is given kills it: its workers' logs, its use of memory"
        error = EngineError(why, hint=hint)
        attempt = max(1, stage.attempt)
        tries = max(1, attempt - self._before)
        self._end(StageError.of(self.run, name, attempt, error, tries=tries))

    def _exhausted(self, name: str) -> bool:
        """Whether a stage that went down with its worker must not be started over."""
        stage = self._stages[name]
        if self._streaming and stage.tokens_seen:
            return True
        if stage.deaths >= MOST_DEATHS or stage.losses >= INFRASTRUCTURE_ATTEMPTS:
            return True
        return stage.misses >= MOST_MISSES

    # -- progress --

    def _advance(self) -> None:
        """Open segments that can start a stage, feed those that wait, collect when all is done."""
        # Most runs are one segment, which nobody else has anything for.
        alone = len(self._segments) == 1 and len(self._segments[0].stages) == len(self._stages)
        for index, segment in enumerate(self._segments):
            if not segment.open and self._known.can_start(segment, index):
                self._open(segment, index)
            if segment.open and not alone:
                self._feed(segment, index)
        if not self._collecting and self._known.all_done:
            self._collecting = True
            self._out.append(
                Collect({name: self._known.value(name) for name in sorted(self._known.outputs)})
            )

    def _open(self, segment: SegmentRecord, index: int) -> None:
        segment.open = True
        stages = [n for n in segment.stages if self._known.holds(n, index, Status.PLACED)]
        for name in stages:
            stage = self._stages[name]
            stage.status = Status.OPEN
            stage.attempt += 1
        exports = sorted(n for n in stages if self._known.leaves(n, segment))
        attempts = {name: self._stages[name].attempt for name in sorted(stages)}
        readers = {name: read for name in sorted(stages) if (read := self._known.readers(name))}
        self._out.append(OpenSegment(index, segment.worker, attempts, tuple(exports), readers))

    def _feed(self, segment: SegmentRecord, index: int) -> None:
        for name in sorted(segment.stages):
            if not self._known.holds(name, index, Status.OPEN):
                continue
            for before in sorted(self._graph.dependencies(name)):
                stage = self._stages[before]
                if stage.segment == index:
                    continue
                if (offer := self._known.offer(before, name, segment)) is None:
                    continue
                key = (before, offer.id if isinstance(offer, StreamRef) else "")
                if key not in segment.fed:
                    segment.fed.add(key)
                    self._out.append(FeedSegment(index, before, offer, stage.skipped))

    def _end(self, error: AdjoinError | None) -> None:
        self.ended = True
        for index, segment in enumerate(self._segments):
            if segment.open:
                segment.open = False
                self._out.append(CloseSegment(index))
        usage = sum((stage.usage for stage in self._stages.values()), Usage())
        self._out.append(End(error, usage))

    def _emit(self, body: Body, stage: str = "", attempt: int = 0, at: float | None = None) -> None:
        self._out.append(Emit(body, stage, attempt, at))


def closing_body(error: AdjoinError) -> Body:
    """The last event of a run that did not succeed."""
    if isinstance(error, errors.Cancelled):
        return RunCancelled(reason=error.message)
    return RunFailed(error=errors.to_wire(error))
