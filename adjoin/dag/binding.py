"""What an argument of a stage is: a constant, a reference, or a container of these.

References are written ``${stage.field[0]}``: a subset of CEL, so that full expressions can later be
a further kind of binding beside :class:`Reference` without changing what is written today.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import Template, type_of
from adjoin.dag.datatypes import DataType
from adjoin.dag.names import RESERVED
from adjoin.errors import GraphError, InputError


class Literal(msgspec.Struct, frozen=True, tag="literal"):
    """A constant: null, a scalar, or lists and dicts of them. Make it with :func:`literal`."""

    value: Any


class Reference(msgspec.Struct, frozen=True, tag="reference"):
    """A part of a value: ``root`` is ``inputs`` or a stage; steps are field names and positions.

    Evaluated natively, so arrays and structures pass as they are.
    """

    root: str
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return f"${{{self.root}{''.join(map(_step_text, self.path))}}}"


class Interpolation(msgspec.Struct, frozen=True, tag="text"):
    """A text with scalars put in. Parts alternate freely; a string part stands for itself."""

    parts: tuple[str | Reference, ...]


class Items(msgspec.Struct, frozen=True, tag="list"):
    """A list of bindings, not all of them constant."""

    items: tuple[Binding, ...]


class Fields(msgspec.Struct, frozen=True, tag="dict"):
    """A dict of bindings, not all of them constant, sorted by key."""

    items: tuple[tuple[str, Binding], ...]


Binding: TypeAlias = Literal | Template | Reference | Interpolation | Items | Fields

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
    match binding:
        case Reference():
            yield binding
        case Interpolation(parts):
            yield from (part for part in parts if isinstance(part, Reference))
        case Items(items):
            for item in items:
                yield from references(item)
        case Fields(items):
            for _, item in items:
                yield from references(item)


def evaluate(binding: Binding, scope: Mapping[str, Any]) -> Any:
    """The value of a binding.

    Args:
        scope: ``{"inputs": {name: value}}`` and the value of each stage that is referred to.

    Raises:
        InputError: a path does not exist in the value.
    """
    match binding:
        case Literal(value):
            return value
        case Template():
            return binding
        case Reference():
            return _follow(binding, scope)
        case Interpolation(parts):
            return "".join(
                part if isinstance(part, str) else _as_text(part, _follow(part, scope))
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


def _as_text(reference: Reference, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise InputError(
        f"{reference} is a {type(value).__name__}, which cannot be put into a text",
        hint="turn it into text in a function or a prompt template",
    )


def type_of_binding(binding: Binding, root_type: Callable[[Reference], DataType]) -> DataType:
    """The type of a binding's value.

    Args:
        root_type: the type of what a reference's root stands for.

    Raises:
        GraphError: a path does not exist in the type it goes through.
    """
    match binding:
        case Literal(value):
            return type_of(value)
        case Template():
            return dt.TEMPLATE
        case Reference():
            return _type_behind(binding, root_type(binding))
        case Interpolation(parts):
            for part in parts:
                if isinstance(part, Reference):
                    _require_scalar(part, type_of_binding(part, root_type))
            return dt.STRING
        case Items(items):
            return dt.list_of(dt.union(*(type_of_binding(item, root_type) for item in items)))
        case Fields(items):
            return dt.dict_of(dt.union(*(type_of_binding(item, root_type) for _, item in items)))


def _type_behind(reference: Reference, found: DataType) -> DataType:
    for depth, key in enumerate(reference.path):
        # the first step of an input's reference is its name, which ``root_type`` has followed
        if depth == 0 and reference.root == "inputs":
            continue
        try:
            found = dt.step(found, key)
        except dt.NoSuchStep as error:
            raise GraphError(f"{reference}: {error}") from None
    return found


def _require_scalar(reference: Reference, found: DataType) -> None:
    if not all(member.kind in dt.SCALARS for member in dt.members(found)):
        raise GraphError(
            f"{reference} is {found}, which cannot be put into a text",
            hint="turn it into text in a function or a prompt template",
        )


# --- writing and parsing them -----------------------------------------------------------------

_IDENT = r"[A-Za-z_][A-Za-z0-9_]*"
_STEP = re.compile(
    rf"\s*(?:\.\s*({_IDENT})|\[\s*(?:(\d{{1,9}})|(\"(?:[^\"\\]|\\.)*\")|'([^'\\]*)')\s*\])"
)
_HEAD = re.compile(rf"\$\{{\s*({_IDENT})")
_TAIL = re.compile(r"\s*\}")
#: Where a reference or an escape may start: two dollars before a brace stand for one.
_MARK = re.compile(r"\$+(?=\{)")


#: Dollars at the end of a text part, which a reference follows.
_TRAILING = re.compile(r"\$+\Z")


def _step_text(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    if re.fullmatch(_IDENT, key) and key not in RESERVED:
        return f".{key}"
    return f"[{json.dumps(key, ensure_ascii=False)}]"


def parse_text(text: str) -> Binding:
    """The binding that a written text means: a reference, a text with references, or itself.

    Before ``{``, ``$$`` stands for ``$``: ``$${`` is a plain ``${``.

    Raises:
        GraphError: what stands between ``${`` and ``}`` is not a reference.
    """
    parts: list[str | Reference] = []
    at = 0
    while mark := _MARK.search(text, at):
        pairs, single = divmod(len(mark[0]), 2)
        _append(parts, text[at : mark.start()] + "$" * pairs)
        at = mark.end()
        if single:
            reference, at = _parse_reference(text, mark.end() - 1)
            parts.append(reference)
    _append(parts, text[at:])
    if not any(isinstance(part, Reference) for part in parts):
        return literal("".join(str(part) for part in parts))
    if len(parts) == 1 and isinstance(parts[0], Reference):
        return parts[0]
    return Interpolation(tuple(parts))


def _append(parts: list[str | Reference], text: str) -> None:
    if parts and isinstance(last := parts[-1], str):
        parts[-1] = last + text
    elif text:
        parts.append(text)


def _parse_reference(text: str, at: int) -> tuple[Reference, int]:
    head = _HEAD.match(text, at)
    if head is None:
        raise _no_reference(text, at)
    path: list[str | int] = []
    end = head.end()
    while match := _STEP.match(text, end):
        name, position, quoted, plain = match.groups()
        if name in RESERVED:
            raise GraphError(f"expressions use the word {name!r}", hint=f'write ["{name}"]')
        path.append(int(position) if position else _unquote(name, quoted, plain))
        end = match.end()
    tail = _TAIL.match(text, end)
    if tail is None:
        raise _no_reference(text, at)
    return Reference(head[1], tuple(path)), tail.end()


def _unquote(name: str | None, quoted: str | None, plain: str | None) -> str:
    if quoted is None:
        return name or plain or ""
    try:
        return str(_plain(json.loads(quoted, strict=False), 1))
    except ValueError:
        raise GraphError(f"{quoted} is not a quoted text") from None


def _no_reference(text: str, at: int) -> GraphError:
    return GraphError(
        f"{text[at : at + 60]!r} is not a reference",
        hint="write ${inputs.name}, ${stage}, ${stage.field} or ${stage[0]}; $${ is a plain ${; "
        "compute anything else in a function",
    )


def write_text(text: str) -> str:
    """The inverse of :func:`parse_text` for a constant text."""
    return _MARK.sub(_doubled, text)


def _doubled(mark: re.Match[str]) -> str:
    return mark[0] * 2


def write(binding: Binding) -> Any:
    """The plain data that stands for a binding in a workflow text."""
    match binding:
        case Literal(value):
            return _escape(value)
        case Template(text):
            return {"text": text}
        case Reference():
            return str(binding)
        case Interpolation(parts):
            return "".join(map(_write_part, parts, (*parts[1:], "")))
        case Items(items):
            return [write(item) for item in items]
        case Fields(items):
            return {key: write(item) for key, item in items}


def _write_part(part: str | Reference, following: str | Reference) -> str:
    if isinstance(part, Reference):
        return str(part)
    text = write_text(part)
    # the brace that dollars at the end stand before is then that of the reference
    return _TRAILING.sub(_doubled, text) if isinstance(following, Reference) else text


def _escape(value: Any) -> Any:
    if isinstance(value, str):
        return write_text(value)
    if isinstance(value, list):
        return [_escape(item) for item in value]
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    return value
