"""``adjoin eval --verify``: the plan that runs are made with, against the naive one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from adjoin.cli.evaluate import fill_collections, records_of
from adjoin.cli.options import open_runtime
from adjoin.cli.scores import note_failures
from adjoin.cli.terminal import note, one_line, print_json
from adjoin.evaluation.equivalence import NAIVE, Difference, differences, greedy
from adjoin.settings import Settings

if TYPE_CHECKING:
    from adjoin.cli.evaluate import Asked
    from adjoin.cli.measure import RecordFile
    from adjoin.evaluation.results import Record

_DIFFER = 1


def verify_plans(asked: Asked, file: RecordFile) -> int:
    """Run both plans on all questions, print a line for each difference.

    Returns:
        0 when every answer is the same, 1 when some differ; where a question failed with both
        plans, the exit code of its error.
    """
    (subject,) = asked.subjects
    graph, heated = greedy(subject.graph)
    if heated:
        note(f"verified with temperature 0 instead of their own: stages {', '.join(heated)}")
    naive_settings = Settings.load(**{**_given(asked.settings), **NAIVE})
    plans = [("naive", naive_settings, 1), ("optimised", asked.settings, asked.concurrency)]
    found: list[list[Record]] = []
    for plan, settings, concurrency in plans:
        side = f"{subject.name} ({plan})"
        one = msgspec.structs.replace(subject, name=side, side=plan, graph=graph)
        with open_runtime(None, settings) as runtime:
            fill_collections(runtime, asked)
            found.append(records_of(runtime, asked, one, file, concurrency))
    naive, optimised = found
    return _report(asked, naive, optimised)


def _given(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def _report(asked: Asked, naive: Sequence[Record], optimised: Sequence[Record]) -> int:
    different = differences(naive, optimised)
    lines = {each.line for each in different}
    failed = [
        one.line
        for one, other in zip(naive, optimised, strict=True)
        if one.error is not None and other.error is not None
    ]
    if asked.as_json:
        print_json(_document(asked, different, failed))
    else:
        for each in different:
            print(one_line(_line(each)), flush=True)
    count = len(asked.questions)
    same = count - len(lines | set(failed))
    note(f"{same} of {count} answers are the same with both plans, {len(lines)} differ")
    code = note_failures(["naive", "optimised"], [naive, optimised])
    return _DIFFER if different else code


def _line(each: Difference) -> str:
    return f"line {each.line}: {each.what}: naive {each.naive!r}, optimised {each.optimised!r}"


def _document(
    asked: Asked, different: Sequence[Difference], failed: Sequence[int]
) -> dict[str, Any]:
    return {
        "questions": len(asked.questions),
        "naive": dict(NAIVE),
        "differences": [each._asdict() for each in different],
        "failed": list(failed),
    }
