"""Records the stages of a workflow while its Python function runs with symbols."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import Template
from adjoin.dag.binding import Binding, Reference, container, literal
from adjoin.dag.build import signature
from adjoin.dag.classes import is_data_class, json_schema_of
from adjoin.dag.control import AT_ONCE, ITERATION, RESULT, Each, Repeat
from adjoin.dag.datatypes import DataType
from adjoin.dag.function import Function, Options, Use
from adjoin.dag.names import INPUTS, RESERVED
from adjoin.dag.source import assigned_name, caller, location
from adjoin.dag.stage import Stage
from adjoin.dag.symbol import Element, Symbol, Until, each, elements_of
from adjoin.dag.templates import read_template
from adjoin.errors import GraphError


class Recorder:
    """The stages of one workflow, as its function calls functions.

    Attributes:
        base: the folder of template files.
        places: ``file:line`` of each stage.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.stages: dict[str, Stage] = {}
        self.places: dict[str, str] = {}

    def add(
        self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], use: Use
    ) -> Symbol:
        frame = caller()
        place = location(frame)
        id = use.options.get("id") or self._free(assigned_name(frame) or function.name)
        if id in self.stages:
            raise GraphError(f"two stages are called {id!r}", where=place, hint="rename one")
        given = _by_name(function, args, kwargs, id, place)
        bindings = {}
        for name, value in given.items():
            parameter = function.parameter(name)
            template = parameter is not None and dt.accepts(parameter.type, "template")
            bindings[name] = self._template(value, place) if template else self.bind(value, place)
        plain = Stage(id, function, bindings, use.policy)
        try:
            stage = self._constructed(plain, given, use, place)
            symbol = Symbol(Reference(id), stage.returns)
        except GraphError as error:
            error.where = error.where or place
            raise
        self.stages[id] = stage
        self.places[id] = place
        return symbol

    def _constructed(self, stage: Stage, given: Mapping[str, Any], use: Use, place: str) -> Stage:
        """The stage with its condition, fan-out and loop."""
        when, until = use.options.get("when"), use.options.get("repeat")
        condition = None if until is None else _condition(until, stage.result)
        elements = elements_of([*given.values(), condition])
        if (over := use.options.get("each")) is not None:
            elements |= elements_of(over) or elements_of(each(over))
        if len(elements) > 1:
            raise GraphError(
                f"stage {stage.id!r} takes elements of two lists",
                where=place,
                hint="name the element first: part = adjoin.each(parts); for pairs of two lists, "
                "make a list of pairs in a function",
            )
        self._require_none(elements_of(when), place, "a condition is decided once")
        return replace(
            stage,
            when=None if when is None else self.bind(when, place),
            each=self._each(next(iter(elements), None), use.options, place),
            repeat=None
            if until is None
            else Repeat(self.bind(condition, place), until.max, until.carry),
        )

    def _each(self, element: Element | None, options: Options, place: str) -> Each | None:
        if element is None:
            if given := options.keys() & {"on_error", "at_once"}:
                raise GraphError(
                    f"{min(given)} is given without each",
                    where=place,
                    hint="pass adjoin.each(…), or give the option each=…",
                )
            return None
        self._require_none(elements_of(element.over), place, "each takes a list as it is")
        over = self.bind(element.over, place)
        on_error, at_once = options.get("on_error", "fail"), options.get("at_once", AT_ONCE)
        return Each(over, element.counts, on_error=on_error, at_once=at_once)

    def require_no_elements(self, value: Any, place: str) -> None:
        self._require_none(elements_of(value), place, "only a call of a function fans out")

    def _require_none(self, elements: frozenset[Element], place: str, why: str) -> None:
        if elements:
            raise GraphError(
                f"an element of adjoin.each(…) is not taken here: {why}",
                where=place,
                hint="pass it to a function, and use the list that the call gives",
            )

    def _free(self, name: str) -> str:
        """The name itself, or with the first number from 2 that makes it a new one."""
        name = f"{name}_" if name in RESERVED or name == INPUTS else name
        found, number = name, 2
        while found in self.stages:
            found, number = f"{name}_{number}", number + 1
        return found

    def _template(self, value: Any, place: str) -> Binding:
        if isinstance(value, Path):
            return read_template(value, self.base)
        return value if isinstance(value, Template) else self.bind(value, place)

    def bind(self, value: Any, place: str) -> Binding:
        """What an argument or a returned value stands for in the graph."""
        if isinstance(value, Symbol):
            return value._binding
        if isinstance(value, Path | Template):
            raise GraphError(
                f"a {type(value).__name__} is only taken where a function wants a template",
                where=place,
                hint="pass str(path) for the name of a file",
            )
        try:
            if isinstance(value, list | tuple):
                return container([self.bind(item, place) for item in value])
            if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
                return container({key: self.bind(item, place) for key, item in value.items()})
            if is_data_class(value):
                return literal(json_schema_of(value))
            return literal(value)
        except GraphError as error:
            error.where = error.where or place
            raise
        except RecursionError:
            raise GraphError("a constant is nested too deeply", where=place) from None


def _condition(until: Until, result: DataType) -> Any:
    """What the loop's condition says of symbols for a result and its number."""
    symbols = (
        Symbol(Reference(RESULT), result),
        Symbol(Reference(ITERATION), dt.INTEGER),
    )
    return until.condition(*symbols[: len(inspect.signature(until.condition).parameters)])


def _by_name(
    function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], id: str, place: str
) -> dict[str, Any]:
    names = [parameter.name for parameter in function.parameters]
    given = dict(zip(names, args, strict=False))
    doubled = [name for name in kwargs if name in given]
    if len(args) > len(names) or doubled:
        what = f"{doubled[0]!r} twice" if doubled else f"{len(args)} arguments"
        raise GraphError(
            f"stage {id!r}: {function.name!r} is given {what}",
            where=place,
            hint=f"it takes {signature(function)}",
        )
    return {**given, **kwargs}
