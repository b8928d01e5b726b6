"""Metrics: how right an answer is, from 0 to 1, and whether the passages have what it needs."""

from __future__ import annotations

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from adjoin.dag.names import suggest
from adjoin.errors import FunctionError, InputError
from adjoin.functions.builtin.parsing import parse_number
from adjoin.types import Passage

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TOLERANCE = 1e-6
_LARGEST_K = 1000


class Relevant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A passage that has what the answer needs: by its id or source, or by what its text has.

    Attributes:
        name: the passage's id, or its source, or the last parts of its source: ``b.md`` and
            ``a/b.md`` name the source ``docs/a/b.md``, ``/b.md`` and ``c/b.md`` do not.
        text: what the passage's text contains, whatever the case and the kind of space.
    """

    name: str = ""
    text: str = ""

    def matches(self, passage: Passage) -> bool:
        if self.text:
            return _flat(self.text) in _flat(passage.text)
        return self.name in (passage.id, passage.source) or passage.source.endswith(f"/{self.name}")


class Metric(msgspec.Struct, frozen=True):
    """A metric as it was asked for.

    Attributes:
        name: as it was written: ``f1``, ``recall@5``.
        binary: whether it is 0 or 1 and nothing between.
        k: of ``recall@k``, else 0.
        tolerance: of ``numeric``.
    """

    name: str
    binary: bool = True
    k: int = 0
    tolerance: float | None = None

    @property
    def needs(self) -> str:
        """What a line of the data must have for it: ``answer`` or ``relevant``."""
        return "relevant" if self.k else "answer"

    def of_answer(self, answer: Any, accepted: Sequence[Any]) -> float:
        """The best score of the answer over all accepted ones."""
        score = self._score
        return max(score(answer, reference) for reference in accepted)

    def of_passages(self, passages: Sequence[Passage], relevant: Sequence[Relevant]) -> float:
        """1 when one of the first ``k`` passages is relevant, else 0."""
        first = passages[: self.k]
        return float(any(each.matches(passage) for each in relevant for passage in first))

    @property
    def _score(self) -> Callable[[Any, Any], float]:
        if self.tolerance is not None:
            tolerance = self.tolerance
            return lambda answer, reference: numeric(answer, reference, tolerance)
        return _TEXT_METRICS[self.name]


def parse_metric(text: str) -> Metric:
    """The metric of a name: exact, contains, f1, numeric, numeric@TOLERANCE, recall@K.

    Raises:
        InputError: there is no such metric, or its number is none.
    """
    name, at, number = text.partition("@")
    if name in _TEXT_METRICS and not at:
        return Metric(text, binary=name != "f1")
    if name == "numeric":
        return Metric(text, tolerance=_tolerance(text, number) if at else _TOLERANCE)
    if name == "recall":
        if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= _LARGEST_K:
            raise InputError(
                f"metric {text!r} does not say among how many passages", hint="write recall@5"
            )
        return Metric(text, k=int(number))
    known = [*_TEXT_METRICS, "numeric", "recall@5"]
    hint = suggest(text, known) or f"choose {', '.join(known)}"
    raise InputError(f"there is no metric {text!r}", hint=hint)


def _tolerance(metric: str, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise InputError(f"metric {metric!r} has no tolerance", hint="write numeric@0.01")
    return found


# --- texts ----------------------------------------------------------------------------------------


def normalised(text: str) -> str:
    """Lower case, without punctuation and English articles, single spaces; SQuAD's normalisation.

    A text that has nothing else keeps its words: the answer "A" is an answer. Rajpurkar et al.,
    2016 (arXiv:1606.05250), and its evaluation script.
    """
    lower = text.lower()
    words = _ARTICLES.sub(" ", lower.translate(_PUNCTUATION)).split()
    return " ".join(words or lower.split())


def exact(answer: Any, reference: Any) -> float:
    """1 when both are the same text after :func:`normalised`."""
    return float(normalised(as_text(answer)) == normalised(as_text(reference)))


def contains(answer: Any, reference: Any) -> float:
    """1 when the reference's words are in the answer, one after another; 5 is not in 15."""
    words = normalised(as_text(reference))
    return float(bool(words) and f" {words} " in f" {normalised(as_text(answer))} ")


def f1(answer: Any, reference: Any) -> float:
    """The harmonic mean of precision and recall of the answer's words, as SQuAD's script has it."""
    said, wanted = (normalised(as_text(each)).split() for each in (answer, reference))
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted))


def numeric(answer: Any, reference: Any, tolerance: float = _TOLERANCE) -> float:
    """1 when the last number of the answer is that of the reference.

    They may differ by ``tolerance``, absolute, and by a relative 1e-6 for what rounding does.
    """
    said, wanted = _number(answer), _number(reference)
    if said is None or wanted is None:
        return 0.0
    return float(math.isclose(said, wanted, rel_tol=_TOLERANCE, abs_tol=tolerance))


def has_number(reference: Any) -> bool:
    return _number(reference) is not None


def _number(value: Any) -> float | None:
    try:
        return float(parse_number(as_text(value)))
    except (FunctionError, OverflowError):
        return None


def as_text(value: Any) -> str:
    """The text of an answer that is plain data.

    Of a generation it is what it says, of a number its digits, of lists and objects their JSON.
    """
    match value:
        case None:
            return ""
        case str():
            return value
        case float() if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case {"text": str(text), "finish_reason": str()} | {"content": str(text), "tool_calls": _}:
            return text  # a generation, or a reply
    return json.dumps(value, ensure_ascii=False)


def _flat(text: str) -> str:
    return " ".join(text.casefold().split())


_TEXT_METRICS: dict[str, Callable[[Any, Any], float]] = {
    "exact": exact,
    "contains": contains,
    "f1": f1,
}
