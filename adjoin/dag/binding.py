"""What an argument of a stage is: a constant, a reference, an expression, or a container of these.

How they are written (``${stage.field[0]}``) is in ``adjoin.dag.text``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from adjoin.dag import datatypes as dt
from adjoin.dag import expression
from adjoin.dag.annotations import Template, type_of
from adjoin.dag.datatypes import DataType
from adjoin.dag.syntax import step_text
from adjoin.errors import GraphError, InputError


class Literal(msgspec.Struct, frozen=True, tag="literal"):
    """A constant: null, a scalar, or lists and dicts of them. Make it with :func:`literal`."""

    value: Any


class Reference(msgspec.Struct, frozen=True, tag="reference"):
    """A part of a value: ``root`` is ``inputs`` or a stage; steps are field names and positions.

    Evaluated natively, so arrays and structures pass as they are. Within a construct, ``root`` may
    also be a name that the construct binds, such as ``item``.
    """

    root: str
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return f"${{{self.root}{''.join(map(step_text, self.path))}}}"


class Expression(msgspec.Struct, frozen=True, tag="expression"):
    """A value computed from others, in CEL; see ``adjoin.dag.expression`` for its bounds.

    Attributes:
        source: in the one form that ``adjoin.dag.syntax`` writes.
    """

    source: str

    def __str__(self) -> str:
        return f"${{{self.source}}}"

    @property
    def roots(self) -> frozenset[str]:
        return frozenset(root for root, _ in expression.paths(self.source))


class Interpolation(msgspec.Struct, frozen=True, tag="text"):
    """A text with scalars put in. Parts alternate freely; a string part stands for itself."""

    parts: tuple[str | Reference | Expression, ...]


class Items(msgspec.Struct, frozen=True, tag="list"):
    """A list of bindings, not all of them constant."""

    items: tuple[Binding, ...]


class Fields(msgspec.Struct, frozen=True, tag="dict"):
    """A dict of bindings, not all of them constant, sorted by key."""

    items: tuple[tuple[str, Binding], ...]


Binding: TypeAlias = Literal | Template | Reference | Expression | Interpolation | Items | Fields

MAX_DEPTH = 32
_INTEGERS = range(-(2**63), 2**63)


def literal(value: object) -> Literal:
    """A constant that every process reads the same: plain, finite, keys sorted.

    Raises:
        GraphError: the value is not plain data.
    """
    return Literal(_plain(value, MAX_DEPTH))


def _plain(value: object, depth: int) -> Any:
    if depth == 0:
        raise GraphError(f"a constant is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise GraphError("a constant text holds a lone surrogate, which is not valid Unicode")
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise GraphError(f"{str(value)[:24]}… does not fit into a 64-bit integer")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise GraphError(f"{value} is not a finite number")
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {_plain(key, depth): _plain(value[key], depth - 1) for key in sorted(value)}
    raise GraphError(
        f"a {type(value).__name__} cannot be written into a workflow",
        hint="constants are text, numbers, booleans, lists and dicts with text keys; "
        "make anything else in a function",
    )


def container(value: list[Any] | tuple[Any, ...] | Mapping[str, Any]) -> Binding:
    """A list or dict whose parts are bindings already; constant where all parts are."""
    if isinstance(value, Mapping):
        parts = {key: value[key] for key in sorted(value)}
        if all(isinstance(part, Literal) for part in parts.values()):
            return literal({key: part.value for key, part in parts.items()})
        return Fields(tuple(parts.items()))
    if all(isinstance(part, Literal) for part in value):
        return literal([part.value for part in value])
    return Items(tuple(value))


# --- reading them -----------------------------------------------------------------------------


def references(binding: Binding) -> Iterator[Reference]:
    """What a binding refers to; of an expression, the parts that it needs."""
    match binding:
        case Reference():
            yield binding
        case Expression(source):
            yield from (Reference(*path) for path in expression.paths(source))
        case Interpolation(parts):
            for part in parts:
                if not isinstance(part, str):
                    yield from references(part)
        case Items(items):
            for item in items:
                yield from references(item)
        case Fields(items):
            for _, item in items:
                yield from references(item)


def taken(binding: Binding) -> frozenset[str]:
    """The roots without which the binding has no value: what it refers to, or its text shows.

    Expressions, lists and dicts have one without them: they hold null in their place.
    """
    match binding:
        case Reference(root):
            return frozenset([root])
        case Interpolation(parts):
            return frozenset(part.root for part in parts if isinstance(part, Reference))
    return frozenset()


def evaluate(binding: Binding, scope: Mapping[str, Any]) -> Any:
    """The value of a binding; null where it takes a value that is null as a whole.

    Args:
        scope: ``{"inputs": {name: value}}`` and the value of each stage that is referred to, null
            for one that was skipped.

    Raises:
        InputError: a path does not exist in the value, or an expression cannot be computed.
    """
    match binding:
        case Reference(root):
            return None if scope[root] is None else _follow(binding, scope)
        case Literal(value):
            return value
        case Template():
            return binding
        case Expression(source):
            return expression.compute(source, scope)
        case Interpolation() if any(scope[root] is None for root in taken(binding)):
            return None
        case Interpolation(parts):
            return "".join(
                part if isinstance(part, str) else _as_text(part, evaluate(part, scope))
                for part in parts
            )
        case Items(items):
            return [evaluate(item, scope) for item in items]
        case Fields(items):
            return {key: evaluate(item, scope) for key, item in items}


def _follow(reference: Reference, scope: Mapping[str, Any]) -> Any:
    value = scope[reference.root]
    for key in reference.path:
        try:
            value = _part(value, key)
        except (LookupError, AttributeError, TypeError):
            raise InputError(
                f"{reference} does not exist: {_describe(value)} has no {key!r}",
                hint="check what the stage returned",
            ) from None
    return value


def _part(value: Any, key: str | int) -> Any:
    if isinstance(key, int) or isinstance(value, Mapping):
        if isinstance(value, str | bytes):
            raise TypeError
        return value[key]
    # Names come from workflow texts: only data may be reached, no method and nothing private.
    if key.startswith("_") or callable(part := getattr(value, key)):
        raise AttributeError
    return part


def _describe(value: Any) -> str:
    name = type(value).__name__
    return f"a {name} of {len(value)} items" if isinstance(value, list | tuple) else f"a {name}"


def _as_text(part: Reference | Expression, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise InputError(
        f"{part} is a {type(value).__name__}, which cannot be put into a text",
        hint="turn it into text in a function or a prompt template",
    )


def type_of_binding(
    binding: Binding, types: Mapping[str, DataType], skippable: frozenset[str] = frozenset()
) -> DataType:
    """The type of a binding's value.

    Args:
        types: of each root that is referred to.
        skippable: roots that may be null instead, where the binding holds them in a list or dict.

    Raises:
        GraphError: a path does not exist in the type it goes through.
    """

    def inner(item: Binding) -> DataType:
        found = type_of_binding(item, types, skippable)
        return dt.union(found, dt.NULL) if taken(item) & skippable else found

    match binding:
        case Literal(value):
            return type_of(value)
        case Template():
            return dt.TEMPLATE
        case Expression(source):
            return expression.infer(source, types)
        case Reference():
            return _type_behind(binding, types[binding.root])
        case Interpolation(parts):
            for part in parts:
                if not isinstance(part, str):
                    _require_scalar(part, type_of_binding(part, types))
            return dt.STRING
        case Items(items):
            return dt.list_of(dt.union(*map(inner, items)))
        case Fields(items):
            return dt.dict_of(dt.union(*(inner(item) for _, item in items)))


def _type_behind(reference: Reference, found: DataType) -> DataType:
    for key in reference.path:
        try:
            found = dt.step(found, key)
        except dt.NoSuchStep as error:
            raise GraphError(f"{reference}: {error}") from None
    return found


def _require_scalar(part: Reference | Expression, found: DataType) -> None:
    if not all(member.kind in dt.SCALARS for member in dt.members(found)):
        raise GraphError(
            f"{part} is {found}, which cannot be put into a text",
            hint="turn it into text in a function or a prompt template",
        )
