"""Whether a value fits a JSON Schema, in bounded time.

Schemas are data of whoever writes a workflow. Two parts of the language let a small one take for
ever: patterns, which run here in the linear-time engine of CEL's ``matches``, and references, which
pay from a budget. The rest is bounded by the sizes of schema and value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import Any

#: References that one validation may follow.
MAX_REFERENCES = 20_000

_followed: ContextVar[int] = ContextVar("adjoin_schema_references")


class TooMuch(Exception):
    """The budget is used up."""


def misfit(value: Any, schema: str) -> str:
    """Why a value does not fit the text of a checked schema; empty when it does."""
    _followed.set(0)
    try:
        error = next(iter(_validator(schema).iter_errors(value)), None)
    except (TooMuch, RecursionError):
        return "the schema takes too long to check, or refers to itself without end"
    if error is None:
        return ""
    at = "".join(f"[{key!r}]" for key in error.absolute_path)
    return f"{at + ': ' if at else ''}{error.message[:300]}"


def is_pattern(pattern: str) -> bool:
    """Whether it is a regular expression without look-around and back-references."""
    try:
        _matches(pattern, "")
    except RuntimeError:
        return False
    return True


def _matches(pattern: str, text: str) -> bool:
    return bool(_program().execute({"pattern": pattern, "text": text}))


@cache
def _program() -> Any:
    import cel

    return cel.compile("text.matches(pattern)")


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    return _validator_class()(json.loads(schema))


@cache
def _validator_class() -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def pattern(_: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
        if isinstance(value, str) and not _matches(pattern, value):
            yield ValidationError(f"{value[:80]!r} does not match {pattern!r}")

    known = Draft202012Validator.VALIDATORS
    paid = {name: _paid(known[name]) for name in ("$ref", "$dynamicRef")}
    return extend(Draft202012Validator, {"pattern": pattern, **paid})


def _paid(keyword: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    """A keyword that pays each time it is followed."""

    def follow(*arguments: Any) -> Iterator[Any]:
        followed = _followed.get() + 1
        if followed > MAX_REFERENCES:
            raise TooMuch
        _followed.set(followed)
        yield from keyword(*arguments) or ()

    return follow
