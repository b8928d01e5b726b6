"""What a stage does beside calling its function once: fan out over elements, repeat in a loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from adjoin.dag import datatypes as dt
from adjoin.dag.binding import Binding, evaluate
from adjoin.errors import AdjoinError, Cancelled, InputError, root_cause

MAX_ELEMENTS = 10_000
AT_ONCE, MAX_AT_ONCE = 32, 1_000
MAX_ITERATIONS = 1_000
ITEM, INDEX, RESULT, ITERATION = "item", "index", "result", "iteration"

OnError = Literal["fail", "skip", "collect"]
ON_ERROR: tuple[OnError, ...] = ("fail", "skip", "collect")

#: What stands in place of an element that failed, with ``on_error: collect``.
ELEMENT_ERROR = dt.record({"error": dt.record({"code": dt.STRING, "message": dt.STRING})})


class Each(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fan-out: the function is called once for each element, the results are a list in order.

    Attributes:
        over: the list, or the number of elements.
        counts: whether ``over`` is a number; only ``index`` is then bound.
        name: what an element is called in the stage's bindings.
        on_error: what an element that failed does: it fails the stage; is left out; or
            ``{"error": {"code": …, "message": …}}`` stands in its place.
        at_once: how many elements run at one time, at most.
    """

    over: Binding
    counts: bool = False
    name: str = ITEM
    on_error: OnError = "fail"
    at_once: int = AT_ONCE

    @property
    def names(self) -> frozenset[str]:
        """What bindings of the stage may refer to beside inputs and stages."""
        return frozenset([INDEX] if self.counts else [INDEX, self.name])

    def elements(self, scope: Mapping[str, Any]) -> list[dict[str, Any]]:
        """For each element what it adds to the scope.

        Raises:
            InputError: there is no list or number, or it is more than 10,000.
        """
        found = evaluate(self.over, scope)
        count = found if self.counts else len(found) if isinstance(found, list | tuple) else None
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            wanted = "the number of elements" if self.counts else "a list"
            raise InputError(f"each takes {wanted}, got {_shown(found)}")
        if count > MAX_ELEMENTS:
            raise InputError(f"each takes at most {MAX_ELEMENTS} elements, got {count}")
        if self.counts:
            return [{INDEX: index} for index in range(count)]
        return [{self.name: item, INDEX: index} for index, item in enumerate(found)]

    def gather(self, outcomes: Sequence[Any]) -> list[Any]:
        """The stage's value from its elements' values and errors, in order.

        Raises:
            AdjoinError: of the first element that failed, with ``on_error`` fail; that the run was
                cancelled is no failure of an element, and always raised.
        """
        return list(self._gathered(outcomes))

    def _gathered(self, outcomes: Sequence[Any]) -> Iterator[Any]:
        for outcome in outcomes:
            if not isinstance(outcome, AdjoinError):
                yield outcome
            elif self.on_error == "fail" or isinstance(outcome, Cancelled):
                raise outcome
            elif self.on_error == "collect":
                cause = root_cause(outcome)
                yield {"error": {"code": cause.code, "message": str(cause)}}


class Repeat(msgspec.Struct, frozen=True, omit_defaults=True):
    """A loop: the function is called again with what it returned until a condition holds.

    Attributes:
        until: looked at after each iteration; may refer to ``result`` and ``iteration`` (from 1).
        max: how often the function is called, at most.
        carry: the argument that the whole result becomes; empty when parts of the result become
            the arguments of their names.
    """

    until: Binding
    max: int
    carry: str = ""

    names = frozenset({RESULT, ITERATION})

    def finished(self, scope: Mapping[str, Any], result: Any, iteration: int) -> bool:
        """Whether this iteration was the last.

        Raises:
            InputError: the condition is not true or false.
        """
        if iteration >= self.max:
            return True
        return condition(self.until, {**scope, RESULT: result, ITERATION: iteration}, "until")

    def carried(self, result: Any, names: frozenset[str]) -> dict[str, Any]:
        """The arguments of these names that a result replaces.

        Raises:
            InputError: the result has no parts.
        """
        if self.carry:
            return {self.carry: result}
        if isinstance(result, Mapping):
            return {name: result[name] for name in names & result.keys()}
        if result is None or isinstance(result, str | bytes | int | float | list | tuple):
            raise InputError(
                f"repeat carries the parts of a result by name, got {_shown(result)}",
                hint="name the argument that it becomes: carry",
            )
        return {name: getattr(result, name) for name in names if _is_field(result, name)}


def _is_field(value: Any, name: str) -> bool:
    return not name.startswith("_") and not callable(getattr(value, name, callable))


def condition(bound: Binding, scope: Mapping[str, Any], what: str) -> bool:
    """The value of a condition.

    Raises:
        InputError: it is not true or false.
    """
    found = evaluate(bound, scope)
    if not isinstance(found, bool):
        raise InputError(
            f"the condition {what} must be true or false, got {_shown(found)}",
            hint="compare it with something, such as ${a > 0} or ${a != null}",
        )
    return found


def _shown(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
