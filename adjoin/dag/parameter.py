"""Parameters of functions and inputs of workflows: a type, a default, bounds."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import from_annotation, type_of
from adjoin.dag.binding import Literal, literal
from adjoin.dag.datatypes import DataType
from adjoin.dag.values import conform, from_text
from adjoin.errors import DefinitionError, InputError


class Bounds(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What a value must keep to beside its type. Lengths count characters or items."""

    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    enum: tuple[str | int | float | bool, ...] = ()

    def broken_by(self, value: Any) -> str:
        """Why the value is out of bounds; empty when it is not."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.minimum is not None and value < self.minimum:
                return f"must be at least {self.minimum:g}, got {value:g}"
            if self.maximum is not None and value > self.maximum:
                return f"must be at most {self.maximum:g}, got {value:g}"
        if isinstance(value, str | bytes | Sequence | Mapping):
            if self.min_length is not None and len(value) < self.min_length:
                return f"must have a length of at least {self.min_length}, got {len(value)}"
            if self.max_length is not None and len(value) > self.max_length:
                return f"must have a length of at most {self.max_length}, got {len(value)}"
        if self.enum and value is not None and value not in self.enum:
            return f"must be one of {', '.join(map(repr, self.enum))}, got {str(value)[:60]!r}"
        return ""


class Parameter(msgspec.Struct, frozen=True):
    """One argument that a function or a workflow takes.

    Attributes:
        default: None when the argument is required.
    """

    name: str
    type: DataType = dt.ANY
    default: Literal | None = None
    bounds: Bounds = Bounds()
    description: str = ""

    @property
    def required(self) -> bool:
        return self.default is None

    def check(self, value: Any) -> Any:
        """The value in this parameter's type; JSON forms become passages, messages and vectors.

        Raises:
            InputError: it does not fit, naming the parameter.
        """
        try:
            value = conform(value, self.type)
        except ValueError as error:
            raise InputError(str(error), where=f"input {self.name!r}") from None
        if reason := self.bounds.broken_by(value):
            raise InputError(reason, where=f"input {self.name!r}")
        return value

    def to_json_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of what callers give: type, bounds, default and description."""
        found = _bounded(self.type, msgspec.to_builtins(self.bounds))
        if self.description:
            found["description"] = self.description
        if self.default is not None:
            found["default"] = self.default.value
        return found

    def check_default(self) -> Parameter:
        """Return self, or raise :class:`DefinitionError` when the default does not fit."""
        if self.default is not None:
            value = self.default.value
            reason = self.bounds.broken_by(value)
            if not dt.assignable(type_of(value), self.type):
                reason = f"is {type_of(value)}, not {self.type}"
            if reason:
                raise DefinitionError(f"the default of {self.name!r} {reason}")
        return self

    @classmethod
    def of(cls, name: str, annotation: Any, default: Any) -> Parameter:
        """From one parameter of a Python signature; ``Annotated[…, msgspec.Meta(…)]`` gives bounds.

        Raises:
            DefinitionError: the annotation's bounds or the default cannot be used.
        """
        bounds, description = _bounds(name, annotation)
        kind = from_annotation(annotation)
        if default is inspect.Parameter.empty:
            return cls(name, kind, None, bounds, description)
        if default is None:
            kind = dt.union(kind, dt.NULL)
        return cls(name, kind, literal(default), bounds, description).check_default()


def parse_input(parameter: Parameter, text: str) -> Any:
    """The value of an input that was typed as text: ``"5"`` is 5 for an integer.

    Text stays as it is where the input takes text; otherwise it is read as JSON.

    Raises:
        InputError: it does not fit, naming the input.
    """
    try:
        value = from_text(text, parameter.type)
    except ValueError as error:
        raise InputError(str(error), where=f"input {parameter.name!r}") from None
    return parameter.check(value)


_SIZES = {"list": "Items", "dict": "Properties", "string": "Length"}


def _bounded(of: DataType, bounds: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a type, each bound where it is one of values of that kind."""
    found = dt.to_json_schema(of)
    if of.kind == "union":
        return {**found, "anyOf": [_bounded(member, bounds) for member in of.args]}
    for key, value in bounds.items():
        if key.endswith("Length"):
            if size := _SIZES.get(of.kind):
                found[key.replace("Length", size)] = value
        elif of.kind in ("integer", "number") or (key == "enum" and of.kind == "string"):
            found[key] = list(value) if key == "enum" else value
    return found


_META = {"ge": "minimum", "le": "maximum", "min_length": "minLength", "max_length": "maxLength"}


def _bounds(name: str, annotation: Any) -> tuple[Bounds, str]:
    found: dict[str, Any] = {}
    description = ""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, *extras = typing.get_args(annotation)
        for meta in (extra for extra in extras if isinstance(extra, msgspec.Meta)):
            given = {key: value for key, value in meta.__rich_repr__() if value is not None}
            description = given.pop("description", description)
            if unknown := given.keys() - _META.keys():
                raise DefinitionError(
                    f"parameter {name!r} is bounded by {', '.join(sorted(unknown))}",
                    hint=f"use {', '.join(_META)} and description",
                )
            found |= {_META[key]: value for key, value in given.items()}
    if options := _literal_values(annotation):
        found["enum"] = options
    # converted as a written bound is: 1 and 1.0 are one bound
    return msgspec.convert(found, Bounds), description


def _literal_values(annotation: Any) -> tuple[Any, ...]:
    """The values that a ``typing.Literal`` allows, also where it is optional."""
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return tuple(arg for arg in args if arg is not None)
    others = [arg for arg in args if arg is not type(None)]
    if len(others) == 1 and len(args) == 2:
        return _literal_values(others[0])
    return ()
