"""``parse``: the part of an answer that a program works with."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from adjoin.dag import datatypes as dt
from adjoin.dag.binding import Binding
from adjoin.dag.binding import Literal as Bound
from adjoin.dag.datatypes import DataType
from adjoin.errors import FunctionError, InputError
from adjoin.functions.builtin import schemas

MAX_CHARACTERS = 1_000_000
#: Places in a text where JSON may begin that are tried.
_MAX_STARTS = 1000
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{{1,3}}(?!\w))?"
#: Not inside of a word or another number, so neither the 2 of H2O nor the 5 of 1.2.5 begins one; a
#: sign stands against its number and not behind another: 10-5 is two numbers, 1/2/2020 three.
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>(?<![\w)%.,])[-+\u2212](?=[$€£.\d]))?[$€£]?\s?"
    rf"(?:(?<!/)(?:(?P<whole>\d+)\s+)?(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?![\d/])"
    rf"|(?P<decimal>{_DECIMAL}))"
)
_ANSWER = r"\banswer\s*(?:is\s*:?|:|=)\s*(?:the\s+)?[\s\"'`*_(\[$]*"
_FENCE = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)```", re.DOTALL)


def parse(
    text: str,
    *,
    into: Literal["number", "choice", "json"],
    choices: list[str] | None = None,
    schema: dict[str, Any] | None = None,
) -> Any:
    """What a text says: the last number in it, the choice that it names, or the first JSON value.

    Numbers may have thousands separators (``1,234.5``), be fractions (``3/4``, ``1 1/2``) or have a
    currency or percent sign, which is left out; whole ones are integers. A choice is found whatever
    its case, as a whole word; the last "answer is …" counts before any other mention, and the last
    mention otherwise; a choice of one letter has to be written in its case. JSON is looked for in
    the whole text, in fenced blocks, and anywhere; of several values the first that fits the schema
    counts.

    Raises:
        FunctionError: the text says no such thing; a stage with more attempts is tried again.
        InputError: the arguments make no sense.
        DefinitionError: the schema is not one.
    """
    _check(text, into, choices, schema)
    match into:
        case "number":
            return parse_number(text)
        case "choice":
            return parse_choice(text, choices or ())
        case "json":
            return parse_json(text, schema)


def result(bindings: Mapping[str, Binding]) -> DataType:
    """What a stage gives, by the arguments that it has.

    Raises:
        DefinitionError: a schema that is written down is none.
    """
    schema = bindings.get("schema")
    if isinstance(schema, Bound) and schema.value is not None:
        schemas.check(schema.value)
    match bindings.get("into"):
        case Bound("number"):
            return dt.NUMBER
        case Bound("choice"):
            return dt.STRING
        case Bound("json") if isinstance(schema, Bound) and schema.value is not None:
            return schemas.data_type(schema.value)
    return dt.ANY


def _check(text: str, into: str, choices: Any, schema: Any) -> None:
    if into not in ("number", "choice", "json"):
        raise InputError(
            f"into is {into!r}", where="argument 'into'", hint="choose number, choice or json"
        )
    if choices is not None if into != "choice" else not choices:
        raise InputError(
            "choices go with into='choice'",
            where="argument 'choices'",
            hint="list the answers there are",
        )
    if schema is not None:
        if into != "json":
            raise InputError("a schema goes with into='json'", where="argument 'schema'")
        schemas.check(schema)
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"the text has {len(text)} characters, more than {MAX_CHARACTERS}")


# --- numbers --------------------------------------------------------------------------------------


def parse_number(text: str) -> int | float:
    """The last number of a text."""
    found = None
    for match in _NUMBER.finditer(text):
        number = _number(match)
        found = found if number is None else number
    if found is None:
        raise _nothing("no number", text)
    return found


def whole_number(text: str) -> int | float | None:
    """The number that a text is, if it is one and nothing else; a percent sign may follow."""
    match = _NUMBER.fullmatch(text.removesuffix("%").strip())
    return _number(match) if match else None


def _number(match: re.Match[str]) -> int | float | None:
    sign = -1 if match["sign"] in ("-", "\u2212") else 1
    if match["decimal"]:
        digits = match["decimal"].replace(",", "")
        if digits.isdigit():
            # Python reads integers of any length, in quadratic time.
            return sign * int(digits) if len(digits) <= 300 else None
        number = float(digits)
        return sign * number if math.isfinite(number) else None
    parts = [match["whole"] or "0", match["top"], match["bottom"]]
    if max(map(len, parts)) > 300 or int(parts[2]) == 0:
        return None
    whole, top, bottom = map(int, parts)
    exact, rest = divmod(whole * bottom + top, bottom)
    try:
        return sign * (exact if rest == 0 else exact + rest / bottom)
    except OverflowError:
        return None


# --- choices --------------------------------------------------------------------------------------


def parse_choice(text: str, choices: Sequence[str]) -> str:
    """The choice that a text names, spelt as in ``choices``."""
    known = {_key(choice): choice for choice in reversed(choices) if choice.strip()}
    if not known:
        raise InputError("there are no choices", where="argument 'choices'")
    # The longer first: "New York" is not a mention of "York".
    words = "|".join(map(_pattern, sorted(known.values(), key=len, reverse=True)))
    mention = rf"(?P<choice>(?<!\w)(?:{words})(?!\w))"
    for pattern in (rf"(?i:{_ANSWER}){mention}", mention):
        if found := re.findall(pattern, text):
            return known[_key(found[-1])]
    raise _nothing(f"none of {', '.join(map(repr, choices))}", text)


def _pattern(choice: str) -> str:
    escaped = r"\s+".join(map(re.escape, choice.split()))
    # "a" is a word of its own in most texts.
    return escaped if len(choice.strip()) == 1 else rf"(?i:{escaped})"


def _key(choice: str) -> str:
    plain = " ".join(choice.split())
    return plain if len(plain) == 1 else plain.casefold()


# --- JSON -----------------------------------------------------------------------------------------


def parse_json(text: str, schema: Mapping[str, Any] | None = None) -> Any:
    """The first JSON value of a text that fits the schema."""
    reason = ""
    for value in _values(text):
        misfit = schemas.misfit(value, schema) if schema is not None else ""
        if not misfit:
            return value
        reason = reason or misfit
    if reason:
        raise FunctionError(
            f"the JSON does not fit the schema: {reason}", hint=_RETRY, type="ParseError"
        )
    raise _nothing("no JSON", text)


def _values(text: str) -> Iterator[Any]:
    """The whole text, fenced blocks, then what begins with a bracket outside of another value."""
    for candidate in (text, *(match[1] for match in _FENCE.finditer(text))):
        try:
            yield _DECODER.decode(candidate.strip())
        except (ValueError, RecursionError):
            continue
    end = 0
    starts = (match.start() for match in re.finditer(r"[\[{]", text))
    for _, start in zip(range(_MAX_STARTS), starts, strict=False):
        if start < end:
            continue
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        yield value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
_RETRY = "let the stage that wrote it try again, or show it an example"


def _nothing(what: str, text: str) -> FunctionError:
    shown = text if len(text) <= 80 else f"{text[:39]} … {text[-39:]}"
    return FunctionError(f"there is {what} in {shown!r}", hint=_RETRY, type="ParseError")
