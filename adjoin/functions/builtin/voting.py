"""Deciding among answers: ``vote`` and ``select``."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from adjoin.errors import InputError
from adjoin.functions.builtin.parsing import whole_number
from adjoin.types import Generation, Reply

_OPENING = " \t\r\n\"'`*_([{\u00ab\u2018\u201c\u201e"
_CLOSING = " \t\r\n\"'`*_)]}\u00bb\u2019\u201d.,;:!?"


def vote(
    answers: list[Any],
    *,
    weights: list[float] | None = None,
    by: Literal["majority", "logprob"] = "majority",
    normalise: bool = True,
) -> str:
    """The answer that most of several samples gave (self-consistency).

    Answers are texts, generations, replies, numbers or plain data; null and empty ones, and failed
    elements of a fan-out, do not vote.
    ``by`` logprob weighs each generation by its likelihood per token, ``exp(logprob / tokens)``, on
    top of ``weights``. ``normalise`` counts answers as equal that differ in case, space, wrapping
    punctuation or the form of a number. Ties go to the answer that came first; it is given back as
    its first voter wrote it. Wang et al., 2022 (arXiv:2203.11171).

    Raises:
        InputError: nothing votes, the weights do not fit the answers, or a log-probability is
            missing.
    """
    given = _weights(answers, weights)
    totals: dict[str, float] = {}
    texts: dict[str, str] = {}
    for at, (answer, weight) in enumerate(zip(answers, given, strict=True)):
        text = _text(answer, at)
        if not text.strip():
            continue
        if by == "logprob":
            weight *= _likelihood(answer, at)  # noqa: PLW2901 - its share of the vote
        key = normalised(text) if normalise else text
        texts.setdefault(key, text)
        totals[key] = totals.get(key, 0.0) + weight
    if not totals:
        raise InputError(
            "no answer votes",
            where="argument 'answers'",
            hint="give at least one that says something",
        )
    return texts[max(totals, key=totals.__getitem__)]  # the first of equals


def select(
    items: list[Any], scores: list[float], *, k: Annotated[int, Meta(ge=1)] = 1
) -> list[Any]:
    """The ``k`` items with the highest scores, best first; all, if there are fewer.

    Among equals the earlier item is the better one.

    Raises:
        InputError: items and scores differ in number, or a score is not a number.
    """
    if len(items) != len(scores):
        raise InputError(
            f"there are {len(items)} items and {len(scores)} scores",
            where="argument 'scores'",
            hint="give one score for each item",
        )
    given: list[Any] = list(scores)
    for at, score in enumerate(given):
        if isinstance(score, bool) or not isinstance(score, int | float) or math.isnan(score):
            raise InputError(f"score {at} is {score!r}, not a number", where="argument 'scores'")
    if k < 1:
        raise InputError(f"k is {k}", where="argument 'k'", hint="ask for at least one item")
    order = sorted(range(len(items)), key=lambda at: -scores[at])
    return [items[at] for at in order[:k]]


def normalised(text: str) -> str:
    """The form that equal answers share."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    # A point before a number and a sign belong to it, as in .5 and -5.
    number = whole_number(plain.rstrip(_CLOSING).lstrip(_OPENING))
    if number is not None:
        return _number_text(number)
    return plain.strip(_OPENING + _CLOSING) or plain


def _weights(answers: Sequence[Any], weights: Sequence[float] | None) -> Sequence[float]:
    if weights is None:
        return [1.0] * len(answers)
    if len(weights) != len(answers):
        raise InputError(
            f"there are {len(answers)} answers and {len(weights)} weights",
            where="argument 'weights'",
            hint="give one weight for each answer",
        )
    for at, weight in enumerate(weights):
        if not 0 <= weight < math.inf:  # NaN is in no range
            raise InputError(
                f"weight {at} is {weight}",
                where="argument 'weights'",
                hint="weights are finite and not negative",
            )
    return weights


def _text(answer: Any, at: int) -> str:
    match answer:
        case None:
            return ""
        case str():
            return answer
        case Generation():
            return answer.text
        case Reply():
            return answer.content
        case int() | float() if not isinstance(answer, bool):
            return _number_text(answer)
    if _failed(answer):
        return ""
    try:
        return json.dumps(answer, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(
            f"answer {at} is a {type(answer).__name__}, which is no answer",
            where="argument 'answers'",
            hint="give texts, generations, numbers or plain data",
        ) from None


def _failed(answer: Any) -> bool:
    """Whether it is what a fan-out collects in the place of an element that failed."""
    if not isinstance(answer, Mapping) or answer.keys() != {"error"}:
        return False
    error = answer["error"]
    return isinstance(error, Mapping) and {"code", "message"} <= error.keys()


def _number_text(number: float) -> str:
    whole = isinstance(number, int) or number.is_integer()
    return str(int(number)) if whole else repr(float(number))


def _likelihood(answer: Any, at: int) -> float:
    if not isinstance(answer, Generation) or answer.logprob is None:
        raise InputError(
            f"answer {at} has no log-probability",
            where="argument 'answers'",
            hint="generate with logprobs=True, or vote by majority",
        )
    return math.exp(answer.logprob / max(1, answer.tokens))
