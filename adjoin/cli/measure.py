"""A workflow over many questions: runs at once, a record of each as soon as it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from adjoin.cli.terminal import Activity, plain
from adjoin.errors import AdjoinError, Conflict, EngineError, InputError, to_wire
from adjoin.evaluation.outputs import Chosen
from adjoin.evaluation.questions import Question
from adjoin.evaluation.results import Record
from adjoin.types import Event, Progress, RunCancelled, RunCompleted, RunFailed

if TYPE_CHECKING:
    from adjoin import Runtime
    from adjoin.dag import Graph


class Subject(msgspec.Struct, frozen=True):
    """A workflow that is measured.

    Attributes:
        name: as it was named on the command line.
        side: ``a``, or ``b``.
        defaults: inputs for lines that leave them out.
        chosen: which of its outputs are the answer and the passages.
    """

    name: str
    side: str
    graph: Graph
    defaults: Mapping[str, Any] = {}
    chosen: Chosen = Chosen()

    def inputs(self, question: Question) -> dict[str, Any]:
        return {**self.defaults, **question.inputs}

    def owns(self, record: Record) -> bool:
        """Whether the record is of this very workflow, in this place."""
        return (record.side, record.version) == (self.side, self.graph.version)


def measure(
    runtime: Runtime,
    subject: Subject,
    questions: Sequence[Question],
    keep: Callable[[Question, Record], Record],
    concurrency: int,
) -> list[Record]:
    """Run the workflow on each question; records in the order of the questions.

    The first question runs alone, since models load then. A run that fails is a record, too.

    Args:
        keep: is called with each record as its run ends, and gives the one to return.
    """
    try:
        return asyncio.run(_measure(runtime, subject, questions, keep, concurrency))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _measure(
    runtime: Runtime,
    subject: Subject,
    questions: Sequence[Question],
    keep: Callable[[Question, Record], Record],
    concurrency: int,
) -> list[Record]:
    records: dict[int, Record] = {}
    free = asyncio.Semaphore(concurrency)
    label = f"{subject.name}: runs"

    async def one(at: int, question: Question, *, alone: bool = False) -> None:
        async with free:
            record = await _record(runtime, subject, question, alone)
        records[at] = keep(question, record)
        activity(Progress(label=label, done=len(records), total=len(questions)))

    with Activity() as activity:
        activity(Progress(label=label, done=0, total=len(questions)))
        for question in questions[:1]:
            await one(0, question, alone=True)
        async with asyncio.TaskGroup() as group:
            for at, question in enumerate(questions[1:], start=1):
                group.create_task(one(at, question))
    return [records[at] for at in range(len(questions))]


async def _record(runtime: Runtime, subject: Subject, question: Question, alone: bool) -> Record:
    inputs = subject.inputs(question)
    record = Record(
        workflow=subject.name,
        version=subject.graph.version,
        side=subject.side,
        line=question.line,
        key=question.key,
        inputs=plain(inputs),
        alone=alone,
    )
    try:
        last = await _last_event(runtime, subject.graph, inputs)
    except AdjoinError as error:
        return msgspec.structs.replace(record, error=to_wire(error))
    replace = msgspec.structs.replace
    match last.body:
        case RunCompleted(outputs=outputs, usage=usage, seconds=seconds):
            return replace(record, output=plain(outputs), usage=usage, seconds=seconds)
        case RunFailed(error=failed):
            return replace(record, error=failed, seconds=last.at)
        case RunCancelled(reason=reason):
            cancelled = EngineError(reason or "the run was cancelled")
            return replace(record, error=to_wire(cancelled), seconds=last.at)
    raise AdjoinError("a run ended without saying how", where=f"workflow {subject.name!r}")


async def _last_event(runtime: Runtime, graph: Graph, inputs: Mapping[str, Any]) -> Event:
    """How the run ended. Whoever stops waiting for it cancels it."""
    handle = await runtime.asubmit(graph, **inputs)
    last: Event | None = None
    try:
        async for event in handle.aevents():
            last = event
    finally:
        if not handle.done():
            await handle.acancel()
    if last is None:
        raise AdjoinError("a run ended without an event", where=f"workflow {graph.name!r}")
    return last


class RecordFile:
    """The file of ``--output``: a line for each record, written when its run ends."""

    def __init__(self, file: IO[str] | None, kept: Sequence[Record] = ()) -> None:
        self._file = file
        self._kept = kept

    def add(self, record: Record) -> None:
        if self._file is None:
            return
        try:
            print(msgspec.json.encode(record).decode(), file=self._file, flush=True)
        except OSError as error:
            raise InputError(
                f"cannot be written: {error.strerror or error}", where=self._file.name
            ) from None

    def of(self, subject: Subject, questions: Sequence[Question]) -> dict[int, Record]:
        """By line, what an earlier command found for this workflow, inputs included."""
        found = {
            (record.key, msgspec.json.encode(record.inputs, order="sorted")): record
            for record in self._kept
            if subject.owns(record)
        }
        kept = {}
        for question in questions:
            inputs = msgspec.json.encode(plain(subject.inputs(question)), order="sorted")
            if record := found.get((question.key, inputs)):
                kept[question.line] = record
        return kept


@contextmanager
def open_records(path: Path | None, *, resume: bool) -> Iterator[RecordFile]:
    """The records' file, new or with what it has; a run that failed there is run again.

    Raises:
        Conflict: the file has something, and nobody said to resume.
        InputError: it cannot be written, or holds something else.
    """
    if path is None:
        yield RecordFile(None)
        return
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text and not resume:
            raise Conflict(
                "the file is there", where=str(path), hint="go on with --resume, or remove it"
            )
        whole, _, cut = text.rpartition("\n")
        kept = _read_records(whole, path)
        if cut:  # a command was killed within a line
            path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", where=str(path)) from None
    except UnicodeDecodeError:
        raise InputError("the text is not UTF-8", where=str(path)) from None
    with file:
        yield RecordFile(file, kept)


def _read_records(text: str, path: Path) -> list[Record]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        try:
            record = msgspec.json.decode(line, type=Record)
        except msgspec.DecodeError as error:
            raise InputError(
                f"not a record of an evaluation: {error}",
                where=f"{path}:{number}",
                hint="--resume goes on with a file that --output wrote",
            ) from None
        if record.error is None:
            found.append(record)
    return found
