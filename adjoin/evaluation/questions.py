"""Questions with their references, from lines of JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from adjoin.dag import Graph
from adjoin.dag.names import suggest
from adjoin.errors import InputError
from adjoin.evaluation.metrics import Metric, Relevant, has_number

RELEVANT = "relevant"


class Question(msgspec.Struct, frozen=True):
    """One line: the workflow's inputs, the answers that count as right, the passages that help.

    Attributes:
        line: its number in the file, from 1.
        inputs: what the line itself has, without defaults.
    """

    line: int
    inputs: Mapping[str, Any]
    answers: tuple[Any, ...] = ()
    relevant: tuple[Relevant, ...] = ()

    @property
    def key(self) -> str:
        """The same for lines that ask the same: by it a record finds its question again."""
        text = json.dumps(self.inputs, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Needed(msgspec.Struct, frozen=True):
    """What a line has to have.

    Attributes:
        graphs: the workflows that are to take its inputs, each with the defaults of its own.
        reference: the key of the accepted answers.
    """

    graphs: Sequence[tuple[Graph, Mapping[str, Any]]]
    metrics: Sequence[Metric] = ()
    reference: str = "answer"

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(metric.needs for metric in self.metrics)


def read_questions(text: str, file: str, needed: Needed) -> list[Question]:
    """All questions of a file's text; empty lines are left out.

    Raises:
        InputError: a line is no JSON object, its inputs do not fit a workflow, or it lacks a
            reference that a metric needs, and which; or there is no line.
    """
    _check_names(needed)
    found = [
        _question(number, line, f"{file}:{number}", needed)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if not found:
        raise InputError(
            "there are no questions", where=file, hint="write one JSON object on each line"
        )
    return found


def spread(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """So many of them, evenly over the file, whose lines often go document by document."""
    count = len(questions)
    if limit is None or limit >= count:
        return list(questions)
    return [questions[at * count // limit] for at in range(limit)]


def _check_names(needed: Needed) -> None:
    for graph, _ in needed.graphs:
        names = {parameter.name for parameter in graph.inputs}
        if "answer" in needed.kinds and needed.reference in names:
            raise InputError(
                f"workflow {graph.name!r} has an input {needed.reference!r}, too",
                hint="give the reference another key in the data, and name it: --reference KEY",
            )
        if "relevant" in needed.kinds and RELEVANT in names:
            raise InputError(
                f"workflow {graph.name!r} has an input {RELEVANT!r}, which is the key of relevant "
                "passages",
                hint="rename the input",
            )


def _question(number: int, line: str, where: str, needed: Needed) -> Question:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", where=where) from None
    if not isinstance(values, dict):
        raise InputError(
            "not a JSON object", where=where, hint='write {"question": "…", "answer": "…"}'
        )
    known = {parameter.name for graph, _ in needed.graphs for parameter in graph.inputs}
    references = {
        key: values.pop(key)
        for key in (needed.reference, RELEVANT)
        if key in values and key not in known
    }
    _check_inputs(values, where, needed)
    answers: tuple[Any, ...] = ()
    relevant: tuple[Relevant, ...] = ()
    if "answer" in needed.kinds:
        answers = _answers(_reference(references, needed.reference, values, where), where, needed)
    if "relevant" in needed.kinds:
        relevant = _relevant(_reference(references, RELEVANT, values, where), where)
    return Question(number, values, answers, relevant)


def _check_inputs(values: Mapping[str, Any], where: str, needed: Needed) -> None:
    for graph, defaults in needed.graphs:
        names = {parameter.name for parameter in graph.inputs}
        for key in values:
            if key not in names:
                known = [*names, needed.reference, RELEVANT]
                raise InputError(
                    f"{key!r} is neither an input of workflow {graph.name!r} nor a reference",
                    where=where,
                    hint=suggest(key, known),
                )
        try:
            graph.check_inputs({**defaults, **values})
        except InputError as error:
            raise InputError(str(error), where=where) from None


def _reference(
    references: Mapping[str, Any], key: str, values: Mapping[str, Any], where: str
) -> list[Any]:
    if key not in references:
        raise InputError(
            f"has no {key!r}, which the metrics need",
            where=where,
            hint=f'add "{key}": …' if key == RELEVANT else f'add "{key}": …, or --reference KEY',
        )
    found = references[key]
    listed = found if isinstance(found, list) else [found]
    if not listed:
        raise InputError(f"{key!r} is an empty list", where=where, hint="give at least one")
    return listed


def _answers(listed: Sequence[Any], where: str, needed: Needed) -> tuple[Any, ...]:
    for each in listed:
        if not isinstance(each, str | int | float) or not str(each).strip():
            raise InputError(
                f"{needed.reference!r} is {json.dumps(each, ensure_ascii=False)[:80]}",
                where=where,
                hint="give a text, a number or a list of accepted ones",
            )
        numeric = next((each for each in needed.metrics if each.tolerance is not None), None)
        if numeric is not None and not has_number(each):
            raise InputError(
                f"there is no number in {each!r}, which metric {numeric.name!r} needs", where=where
            )
    return tuple(listed)


def _relevant(listed: Sequence[Any], where: str) -> tuple[Relevant, ...]:
    found = []
    for each in listed:
        if isinstance(each, str) and each.strip():
            found.append(Relevant(name=each))
        elif isinstance(each, dict) and each.keys() == {"text"} and str(each["text"]).strip():
            found.append(Relevant(text=str(each["text"])))
        else:
            raise InputError(
                f"{RELEVANT!r} is {json.dumps(each, ensure_ascii=False)[:80]}",
                where=where,
                hint='give a passage\'s id or source, {"text": "…"} that it contains, or a list',
            )
    return tuple(found)
