"""``adjoin eval``: how good a workflow is, whether another is better, and whether plans agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from adjoin.cli.options import Cluster, Json, Set, Target, open_runtime, settings_of, split_pair
from adjoin.errors import InputError

if TYPE_CHECKING:
    from adjoin import Runtime
    from adjoin.cli.measure import RecordFile, Subject
    from adjoin.evaluation.metrics import Metric
    from adjoin.evaluation.questions import Question
    from adjoin.evaluation.results import Record
    from adjoin.settings import Settings


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asked for, checked; nothing has been started."""

    settings: Settings
    subjects: list[Subject]
    questions: list[Question]
    metrics: list[Metric]
    docs: Path | None
    collection_name: str | None
    concurrency: int
    as_json: bool


def evaluate(
    workflow: Target,
    data: Annotated[Path, typer.Option(metavar="FILE", help="A JSON object a line; - is stdin.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Inputs for lines that leave them out."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC",
            help="exact, contains, f1, numeric[@TOLERANCE] or recall@K; repeatable.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="WORKFLOW", help="A second workflow, compared on the same questions."),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare with a plan without batching and sharing instead."),
    ] = False,
    docs: Annotated[
        Path | None, typer.Option(help="A file or folder for the workflow's collection.")
    ] = None,
    collection_name: Annotated[
        str | None, typer.Option(help="Which collection --docs fills, where there are several.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option(metavar="OUTPUT", help="Which output is the answer.")
    ] = None,
    passages: Annotated[
        str | None, typer.Option(metavar="OUTPUT", help="Which output has the passages.")
    ] = None,
    reference: Annotated[
        str, typer.Option(metavar="KEY", help="The key of the right answers in the data.")
    ] = "answer",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only so many questions, evenly spread.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Runs at once.")] = 16,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a JSON line for each run as it ends."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what is in the file of --output.")
    ] = False,
    as_json: Json = False,
    cluster: Cluster = None,
    set_: Set = None,
) -> int:
    """Run a workflow on questions with known answers; print metrics with 95 % intervals."""
    from adjoin.cli.measure import open_records
    from adjoin.evaluation.outputs import choose_outputs

    _check_options(metric, against, verify, cluster, output, resume)
    targets = [workflow] if against is None else [workflow, against]
    settings = settings_of(set_)
    metrics = _metrics(metric or ())
    subjects = [
        msgspec.structs.replace(
            subject, chosen=choose_outputs(subject.graph, metrics, answer, passages)
        )
        for subject in _subjects(targets, settings, inputs or ())
    ]
    asked = Asked(
        settings=settings,
        subjects=subjects,
        questions=_questions(subjects, metrics, data, reference, limit),
        metrics=metrics,
        docs=docs,
        collection_name=collection_name,
        concurrency=concurrency,
        as_json=as_json,
    )
    _check_documents(asked)
    with open_records(output, resume=resume) as file:
        if verify:
            from adjoin.cli.verify import verify_plans

            return verify_plans(asked, file)
        return _evaluate(asked, cluster, file)


def _evaluate(asked: Asked, cluster: str | None, file: RecordFile) -> int:
    from adjoin.cli.scores import show

    with open_runtime(cluster, asked.settings) as runtime:
        fill_collections(runtime, asked)
        found = [
            records_of(runtime, asked, subject, file, asked.concurrency)
            for subject in asked.subjects
        ]
    return show(asked, found)


def records_of(
    runtime: Runtime, asked: Asked, subject: Subject, file: RecordFile, concurrency: int
) -> list[Record]:
    """A record for each question: from the file where it has one, else of a new run."""
    from adjoin.cli.measure import measure
    from adjoin.cli.terminal import note
    from adjoin.evaluation.results import scored

    def score(question: Question, record: Record) -> Record:
        return scored(record, question, asked.metrics, subject.chosen)

    def keep(question: Question, record: Record) -> Record:
        record = score(question, record)
        file.add(record)
        return record

    known = file.of(subject, asked.questions)
    if known:
        note(f"{subject.name}: {len(known)} of {len(asked.questions)} runs are in the file")
    missing = [question for question in asked.questions if question.line not in known]
    made = measure(runtime, subject, missing, keep, concurrency)
    by_line = {record.line: record for record in made}
    return [
        by_line.get(question.line) or score(question, known[question.line])
        for question in asked.questions
    ]


def fill_collections(runtime: Runtime, asked: Asked) -> None:
    """Put the documents into each collection that ``--docs`` means, once."""
    from adjoin.cli.fill import collection_to_fill, fill

    if asked.docs is None:
        return
    filled: set[str] = set()
    for subject in asked.subjects:
        if subject.graph.collection_names():
            name = collection_to_fill(subject.graph, asked.collection_name)
            if name not in filled:
                fill(runtime, subject.graph, asked.docs, asked.collection_name)
                filled.add(name)


# --- what is checked before anything starts -------------------------------------------------------


def _check_options(
    metric: Sequence[str] | None,
    against: str | None,
    verify: bool,
    cluster: str | None,
    output: Path | None,
    resume: bool,
) -> None:
    if verify:
        given = {"--metric": metric, "--against": against, "--cluster": cluster}
        if wrong := [name for name, value in given.items() if value]:
            raise InputError(
                f"--verify compares two plans of one workflow, without {' and '.join(wrong)}",
                hint="it starts clusters of its own; leave the others out",
            )
    elif not metric:
        raise InputError("no metric is given", hint="add --metric exact, for example")
    if resume and output is None:
        raise InputError("--resume needs a file to go on with", hint="give --output too")


def _subjects(targets: Sequence[str], settings: Settings, pairs: Sequence[str]) -> list[Subject]:
    """The workflows, each with the defaults among ``pairs`` that it has inputs for."""
    from adjoin.cli.measure import Subject
    from adjoin.cli.values import parse_pairs
    from adjoin.loading import load_graph

    graphs = [load_graph(target, settings) for target in targets]
    names = [{parameter.name for parameter in graph.inputs} for graph in graphs]
    keys = [split_pair(pair, "an input")[0] for pair in pairs]
    everywhere = set[str]().union(*names)
    found = []
    for target, side, graph, own in zip(targets, "ab", graphs, names, strict=False):
        # One that no workflow has is refused, by the first.
        given = [
            pair
            for pair, key in zip(pairs, keys, strict=True)
            if key in own or key not in everywhere
        ]
        found.append(Subject(target, side, graph, parse_pairs(graph, given)))
    return found


def _metrics(texts: Sequence[str]) -> list[Metric]:
    from adjoin.evaluation.metrics import parse_metric

    found = {metric.name: metric for metric in map(parse_metric, texts)}
    return list(found.values())


def _questions(
    subjects: Sequence[Subject],
    metrics: Sequence[Metric],
    data: Path,
    reference: str,
    limit: int | None,
) -> list[Question]:
    from adjoin.cli.values import read_text
    from adjoin.evaluation.questions import Needed, read_questions, spread

    graphs = [(subject.graph, subject.defaults) for subject in subjects]
    needed = Needed(graphs, metrics, reference)
    return spread(read_questions(read_text(data), str(data), needed), limit)


def _check_documents(asked: Asked) -> None:
    from adjoin.cli.fill import check_documents, collection_to_fill

    if asked.docs is None:
        return
    using = [each for each in asked.subjects if each.graph.collection_names()]
    for subject in using or asked.subjects[:1]:
        collection_to_fill(subject.graph, asked.collection_name)
    check_documents(asked.docs)
