"""What ``adjoin eval`` prints: metrics with their intervals, the comparison, what runs took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adjoin.cli.terminal import note, print_json, print_table
from adjoin.errors import from_wire
from adjoin.evaluation.results import Record, Summary, comparison, summary
from adjoin.evaluation.statistics import Comparison, Interval

if TYPE_CHECKING:
    from adjoin.cli.evaluate import Asked

_METRICS = ("metric", "workflow", "mean", "95 % interval", "questions")
_PAIRS = ("metric", "difference", "95 % interval", "wins", "losses", "ties", "p (McNemar)")
_COSTS = ("workflow", "runs", "failed", "p50 s", "p95 s", "prompt", "cached", "generated")


def show(asked: Asked, found: Sequence[Sequence[Record]]) -> int:
    """Print everything.

    Returns:
        0, or the exit code of the first run that failed.
    """
    names = [subject.name for subject in asked.subjects]
    summaries = [
        summary(name, records, asked.metrics) for name, records in zip(names, found, strict=True)
    ]
    compared = comparison(found[0], found[1], asked.metrics) if len(found) > 1 else {}
    if asked.as_json:
        print_json(_document(asked, summaries, compared))
    else:
        _print(asked, summaries, compared)
    _note_short_lists(asked, found)
    return note_failures(names, found)


def note_failures(names: Sequence[str], found: Sequence[Sequence[Record]]) -> int:
    """Say which runs failed, with the first error of each workflow; the first one's exit code."""
    code = 0
    for name, records in zip(names, found, strict=True):
        failed = [record for record in records if record.error is not None]
        if not failed or failed[0].error is None:
            continue
        first = from_wire(failed[0].error)
        code = code or first.exit_code
        note(f"{name}: {len(failed)} of {len(records)} runs failed; line {failed[0].line}: {first}")
    return code


def _print(asked: Asked, summaries: Sequence[Summary], compared: Mapping[str, Comparison]) -> None:
    count = str(len(asked.questions))
    rows = [
        (metric.name, each.workflow, *_cells(each.metrics[metric.name]), count)
        for metric in asked.metrics
        for each in summaries
    ]
    print_table(_METRICS, rows, right=_METRICS[2:])
    if compared:
        print(f"\n{summaries[1].workflow} against {summaries[0].workflow}, question by question")
        pairs = [(name, *_pair(each)) for name, each in compared.items()]
        print_table(_PAIRS, pairs, right=_PAIRS[1:])
    print(f"\nwhat a run takes, with {asked.concurrency} at once")
    print_table(_COSTS, map(_costs, summaries), right=_COSTS[1:])


def _cells(found: Interval) -> tuple[str, str]:
    return f"{found.mean:.3f}", f"{found.low:.3f} to {found.high:.3f}"


def _pair(found: Comparison) -> tuple[str, ...]:
    mean, low, high = found.difference
    p = "" if found.p is None else f"{found.p:.3g}"
    counts = map(str, (found.wins, found.losses, found.ties))
    return (f"{mean:+.3f}", f"{low:+.3f} to {high:+.3f}", *counts, p)


def _costs(each: Summary) -> tuple[str, ...]:
    cost = each.cost
    seconds = ("" if math.isnan(value) else f"{value:.2f}" for value in (cost.p50, cost.p95))
    tokens = (f"{value:,.0f}" for value in (cost.prompt, cost.cached, cost.generated))
    return (each.workflow, str(cost.runs), str(cost.failed), *seconds, *tokens)


def _note_short_lists(asked: Asked, found: Sequence[Sequence[Record]]) -> None:
    """recall@5 of a workflow that returns three passages is its recall@3: better to say so."""
    for metric in asked.metrics:
        for subject, records in zip(asked.subjects, found, strict=True):
            outputs = [record.output for record in records if record.output is not None]
            counts = [len(output.get(subject.chosen.passages) or ()) for output in outputs]
            if metric.k and counts and max(counts) < metric.k:
                note(
                    f"{metric.name}: {subject.name} returned at most {max(counts)} passages; "
                    "has it an input for how many?"
                )


def _document(
    asked: Asked, summaries: Sequence[Summary], compared: Mapping[str, Comparison]
) -> dict[str, Any]:
    workflows = [
        {
            "workflow": each.workflow,
            "version": subject.graph.version,
            "metrics": {name: found._asdict() for name, found in each.metrics.items()},
            "cost": {name: _finite(value) for name, value in _fields(each.cost).items()},
        }
        for subject, each in zip(asked.subjects, summaries, strict=True)
    ]
    pairs = {
        name: {**each._asdict(), "difference": each.difference._asdict()}
        for name, each in compared.items()
    }
    head = {"questions": len(asked.questions), "concurrency": asked.concurrency}
    return {**head, "workflows": workflows, **({"comparison": pairs} if pairs else {})}


def _fields(struct: Any) -> dict[str, Any]:
    import msgspec

    return msgspec.structs.asdict(struct)


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
