"""What runs gave, scored and put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from adjoin.evaluation import statistics
from adjoin.evaluation.metrics import Metric
from adjoin.evaluation.outputs import Chosen
from adjoin.evaluation.questions import Question
from adjoin.evaluation.statistics import Comparison, Interval
from adjoin.types import Usage


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run of one workflow on one question, as a line of ``--output`` has it.

    Attributes:
        workflow: as it was named on the command line.
        version: of its graph.
        side: ``a``, or ``b`` for what it is compared against.
        key: of the question; ``line`` is its number in the data.
        inputs: all that the run was given.
        output: by name; None when the run failed, and ``error`` says with what.
        alone: whether nothing else ran, and models may have been loaded: it says nothing of time.
        seconds: from the run's start to its end.
    """

    workflow: str
    version: str
    side: str
    line: int
    key: str
    inputs: dict[str, Any]
    output: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    scores: dict[str, float] = {}
    seconds: float = 0.0
    usage: Usage = Usage()
    alone: bool = False


def scored(record: Record, question: Question, metrics: Sequence[Metric], chosen: Chosen) -> Record:
    """The record with its scores; a run that failed has 0 in each."""
    scores = {}
    for metric in metrics:
        score = 0.0
        if record.output is not None:
            score = (
                metric.of_passages(chosen.passages_of(record.output), question.relevant)
                if metric.k
                else metric.of_answer(chosen.answer_of(record.output), question.answers)
            )
        scores[metric.name] = score
    return msgspec.structs.replace(record, scores=scores)


class Cost(msgspec.Struct, frozen=True):
    """What runs took; seconds and tokens are of those that succeeded, tokens are means a run."""

    runs: int
    failed: int
    p50: float
    p95: float
    prompt: float
    cached: float
    generated: float


class Summary(msgspec.Struct, frozen=True):
    """One workflow: its metrics with their intervals, and what it took."""

    workflow: str
    metrics: Mapping[str, Interval]
    cost: Cost


def summary(workflow: str, records: Sequence[Record], metrics: Sequence[Metric]) -> Summary:
    return Summary(
        workflow,
        {
            metric.name: statistics.interval(_scores(records, metric), binary=metric.binary)
            for metric in metrics
        },
        _cost(records),
    )


def comparison(
    a: Sequence[Record], b: Sequence[Record], metrics: Sequence[Metric]
) -> dict[str, Comparison]:
    """``b`` against ``a``, by metric; both in the order of the questions."""
    return {
        metric.name: statistics.compare(
            _scores(a, metric), _scores(b, metric), binary=metric.binary
        )
        for metric in metrics
    }


def _scores(records: Sequence[Record], metric: Metric) -> list[float]:
    return [record.scores[metric.name] for record in records]


def _cost(records: Sequence[Record]) -> Cost:
    done = [record for record in records if record.error is None]
    timed = [record.seconds for record in done if not record.alone]
    usage = sum((record.usage for record in done), Usage())
    count = len(done) or 1
    return Cost(
        runs=len(records),
        failed=len(records) - len(done),
        p50=statistics.percentile(timed, 50),
        p95=statistics.percentile(timed, 95),
        prompt=usage.prompt / count,
        cached=usage.cached / count,
        generated=usage.generated / count,
    )
