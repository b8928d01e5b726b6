"""From Python annotations, values and written names to data types."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

import adjoin.types
from adjoin.dag import datatypes as dt
from adjoin.dag.datatypes import DataType
from adjoin.errors import DefinitionError


class Template(msgspec.Struct, frozen=True, tag="template"):
    """The text of a prompt template, captured when a graph is built.

    A parameter annotated ``Template`` takes a text or a :class:`pathlib.Path` in Python, and a
    text, ``{text: …}`` or ``{file: …}`` in YAML. The stage always receives a ``Template``.
    """

    text: str


_PLAIN: dict[Any, DataType] = {
    Any: dt.ANY,
    object: dt.ANY,
    inspect.Parameter.empty: dt.ANY,
    None: dt.NULL,
    types.NoneType: dt.NULL,
    str: dt.STRING,
    int: dt.INTEGER,
    float: dt.NUMBER,
    bool: dt.BOOLEAN,
    bytes: dt.BYTES,
    Template: dt.TEMPLATE,
    np.ndarray: DataType("array"),
}
_LISTS = (list, tuple, abc.Sequence, abc.Iterable, abc.Collection, abc.MutableSequence)
_DICTS = (dict, abc.Mapping, abc.MutableMapping)
_ITERATORS = (abc.Iterator, abc.Generator)
_ASYNC_ITERATORS = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator)
_STREAMS = (*_ITERATORS, *_ASYNC_ITERATORS)

#: Subclasses of these travel as what they derive from.
_DATA = (
    *(int, float, str, list, dict, tuple, bytes, bytearray, memoryview, np.ndarray),
    msgspec.Struct,
)
#: Scalars of numpy that are no plain memory.
_NOT_PLAIN = (np.datetime64, np.timedelta64, np.void, np.object_)
#: Of these libraries only these classes travel.
_FOREIGN = {
    "pyarrow": frozenset({"Table", "RecordBatch"}),
    "torch": frozenset({"Tensor", "Parameter"}),
}


def from_annotation(annotation: Any, _open: frozenset[Any] = frozenset()) -> DataType:
    """The data type of a Python annotation; classes go by their qualified name.

    Raises:
        DefinitionError: the annotation is a stream, which no edge carries.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return from_annotation(args[0], _open)
    if origin is typing.Literal:
        return dt.union(*(type_of(value) for value in args))
    if origin in (typing.Union, types.UnionType):
        return dt.union(*(from_annotation(arg, _open) for arg in args))
    base = origin or annotation
    if base in _LISTS:
        items = [from_annotation(arg, _open) for arg in args if arg is not Ellipsis]
        return dt.list_of(dt.union(*items) if items else dt.ANY)
    if base in _DICTS:
        key, value = [from_annotation(arg, _open) for arg in args] or (dt.STRING, dt.ANY)
        return dt.dict_of(value, key)
    if base is np.ndarray:
        return _array(args)
    if base in _STREAMS:
        raise DefinitionError(
            f"{annotation} within another type cannot pass from stage to stage",
            hint="use a list there, or make it the whole argument or result",
        )
    if isinstance(annotation, typing.NewType):
        return from_annotation(annotation.__supertype__, _open)
    try:
        return _PLAIN[annotation]
    except (KeyError, TypeError):
        return _struct(base, _open) if isinstance(base, type) else dt.ANY


class Iteration(msgspec.Struct, frozen=True):
    """An annotation such as ``Iterator[str]``: a list that is read, or made, piece by piece.

    Attributes:
        whole: the annotation of the list.
        is_async: whether it is for ``async for``.
    """

    whole: Any
    is_async: bool


def iteration(annotation: Any) -> Iteration | None:
    """What an iterator's annotation says; None for every other annotation."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        found = iteration(args[0])
        if found is None:
            return None
        return Iteration(typing.Annotated[(found.whole, *args[1:])], found.is_async)
    base = origin or annotation
    if base not in _STREAMS:
        return None
    return Iteration(list[args[0]] if args else list, base in _ASYNC_ITERATORS)  # type: ignore[valid-type]


def _array(args: tuple[Any, ...]) -> DataType:
    element = typing.get_args(args[-1])[0] if args and typing.get_args(args[-1]) else None
    return DataType("array", name=element.__name__ if isinstance(element, type) else "")


def struct_name(cls: type) -> str:
    if cls.__module__ == adjoin.types.__name__:
        return cls.__name__
    return f"{cls.__module__}:{cls.__qualname__}"


def _struct(cls: type, opened: frozenset[Any]) -> DataType:
    fields = None
    if cls not in opened and _has_fields(cls):
        try:
            hints = typing.get_type_hints(cls)
        except (NameError, TypeError):  # a name known to type checkers only: leave it open
            hints = None
        if hints is not None:
            inner = opened | {cls}
            fields = tuple((name, _field(hint, inner)) for name, hint in hints.items())
    bases = tuple(struct_name(base) for base in cls.__mro__[1:] if base is not object)
    opaque = not (_travels(cls) or _is_open(cls))
    return DataType("struct", name=struct_name(cls), fields=fields, bases=bases, opaque=opaque)


def _travels(cls: type) -> bool:
    """Whether values of a class are data, apart from what their fields hold."""
    library = cls.__module__.partition(".")[0]
    if library in _FOREIGN:
        return cls.__name__ in _FOREIGN[library]
    if issubclass(cls, np.generic):
        return not issubclass(cls, _NOT_PLAIN)
    return (
        issubclass(cls, _DATA)
        or dataclasses.is_dataclass(cls)
        or typing.is_typeddict(cls)
        or hasattr(cls, "model_dump")
    )


def _is_open(cls: type) -> bool:
    """Whether a class says too little of its values, as protocols and abstract classes do."""
    if struct_name(cls) == "collections.abc:Callable" or issubclass(cls, abc.Set):
        return False
    return getattr(cls, "_is_protocol", False) or inspect.isabstract(cls)


def _field(hint: Any, opened: frozenset[Any]) -> DataType:
    if typing.get_origin(hint) in (typing.ClassVar, *_STREAMS):
        return dt.ANY
    return from_annotation(hint, opened)


def _has_fields(cls: type) -> bool:
    known = ("__dataclass_fields__", "__struct_fields__", "model_fields", "_fields")
    return typing.is_typeddict(cls) or any(hasattr(cls, name) for name in known)


def type_of(value: object) -> DataType:
    """The type of a plain value: ``null``, scalars, lists and dicts of them."""
    if isinstance(value, list | tuple):
        return dt.list_of(dt.union(*map(type_of, value)))
    if isinstance(value, Mapping):
        return dt.dict_of(dt.union(*map(type_of, value.values())))
    return from_annotation(type(value))


def hints_of(call: Callable[..., Any], local: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Resolved annotations of a callable.

    Raises:
        DefinitionError: a name in them does not exist while the program runs.
    """
    names = inspect.getclosurevars(call).nonlocals if inspect.isfunction(call) else {}
    try:
        return typing.get_type_hints(call, localns={**(local or {}), **names}, include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"an annotation of {getattr(call, '__qualname__', call)!r} names {error.name!r}, which "
            "is not defined",
            where=getattr(call, "__module__", ""),
            hint="import it outside of TYPE_CHECKING",
        ) from None


_NAMED = {
    **{kind.kind: kind for kind in (dt.STRING, dt.INTEGER, dt.NUMBER, dt.BOOLEAN, dt.BYTES)},
    "null": dt.NULL,
    "any": dt.ANY,
    "list": dt.list_of(dt.ANY),
    "dict": dt.dict_of(dt.ANY),
    "Vector": dt.VECTOR,
    "Passage": from_annotation(adjoin.types.Passage),
    "Message": from_annotation(adjoin.types.Message),
}
_TOKEN = re.compile(r"\s*([A-Za-z]+|[\[\],|])")
TYPE_NAMES = tuple(_NAMED)


def parse_type(text: str) -> DataType:
    """The inverse of ``str(type)`` for the types that have a written name.

    Raises:
        DefinitionError: the text is no such type.
    """
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text) or len(tokens) > 64:
        raise _no_type(text)
    found = _parse_union(tokens, text)
    if tokens:
        raise _no_type(text)
    return found


def is_writable(of: DataType) -> bool:
    """Whether a type has a written name, so that a workflow may take it as an input."""
    try:
        return parse_type(str(of)) == of
    except DefinitionError:
        return False


def _parse_union(tokens: list[str], text: str) -> DataType:
    found = [_parse_one(tokens, text)]
    while tokens and tokens[0] == "|":
        tokens.pop(0)
        found.append(_parse_one(tokens, text))
    return dt.union(*found)


def _parse_one(tokens: list[str], text: str) -> DataType:
    name = tokens.pop(0) if tokens else ""
    if name not in _NAMED:
        raise _no_type(text)
    if name not in ("list", "dict") or not tokens or tokens[0] != "[":
        return _NAMED[name]
    args: list[DataType] = []
    while not args or tokens[:1] == [","]:
        tokens.pop(0)
        args.append(_parse_union(tokens, text))
    if tokens[:1] != ["]"] or len(args) != (1 if name == "list" else 2):
        raise _no_type(text)
    tokens.pop(0)
    return dt.list_of(args[0]) if name == "list" else dt.dict_of(args[1], args[0])


def _no_type(text: str) -> DefinitionError:
    known = ", ".join(TYPE_NAMES)
    return DefinitionError(
        f"{text[:80]!r} is not a type", hint=f"known: {known}, and such as list[string]"
    )
