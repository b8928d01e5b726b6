"""From the JSON form or the text of a value to the value itself, for what callers send."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

import adjoin.types
from adjoin.dag import datatypes as dt
from adjoin.dag.datatypes import DataType

_STRUCTS: dict[str, type] = {"Passage": adjoin.types.Passage, "Message": adjoin.types.Message}


def conform(value: Any, to: DataType) -> Any:
    """The value as ``to``: JSON forms become passages, messages, vectors and bytes.

    Raises:
        ValueError: it does not fit; the text says what was expected and what was found.
    """
    if to.kind == "union":
        return _conform_union(value, to)
    return _CONFORM[to.kind](value, to)


def _conform_union(value: Any, to: DataType) -> Any:
    for member in to.args:
        try:
            return conform(value, member)
        except ValueError:
            continue
    raise _mismatch(value, to)


def _mismatch(value: Any, to: DataType) -> ValueError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "…"
    return ValueError(f"expected {to}, got {_JSON_NAMES.get(type(value), 'a value')} {shown}")


_JSON_NAMES: dict[type, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "list",
    tuple: "list",
    dict: "dict",
    type(None): "null",
}


def _any(value: Any, to: DataType) -> Any:
    return value


def _exactly(*kinds: type) -> Callable[[Any, DataType], Any]:
    def check(value: Any, to: DataType) -> Any:
        if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
            raise _mismatch(value, to)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"expected a finite number, got {value}")
        return value

    return check


def _bytes(value: Any, to: DataType) -> Any:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error:
            raise ValueError("expected bytes, got a text that is not base64") from None
    if not isinstance(value, bytes):
        raise _mismatch(value, to)
    return value


def _list(value: Any, to: DataType) -> Any:
    if not isinstance(value, list | tuple):
        raise _mismatch(value, to)
    found = []
    for index, item in enumerate(value):
        try:
            found.append(conform(item, to.args[0]))
        except ValueError as error:
            raise ValueError(f"[{index}]: {error}") from None
    return found


def _dict(value: Any, to: DataType) -> Any:
    if not isinstance(value, Mapping):
        raise _mismatch(value, to)
    found = {}
    for key, item in value.items():
        try:
            found[conform(key, to.args[0])] = conform(item, to.args[1])
        except ValueError as error:
            raise ValueError(f"[{key!r}]: {error}") from None
    return found


def _array(value: Any, to: DataType) -> Any:
    if isinstance(value, np.ndarray):
        return value if value.dtype == np.float32 else value.astype(np.float32)
    try:
        array = np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise _mismatch(value, to) from None
    if array.ndim not in (1, 2) or not np.isfinite(array).all():
        raise ValueError("expected a vector or a matrix of finite numbers")
    return array


def _struct(value: Any, to: DataType) -> Any:
    cls = _STRUCTS[to.name]
    if isinstance(value, cls):
        return value
    try:
        return msgspec.convert(value, cls)
    except msgspec.ValidationError as error:
        raise ValueError(f"expected {to}: {error}") from None


_CONFORM: dict[str, Callable[[Any, DataType], Any]] = {
    "any": _any,
    "null": _exactly(type(None)),
    "string": _exactly(str),
    "integer": _exactly(int),
    "number": _exactly(int, float),
    "boolean": _exactly(bool),
    "bytes": _bytes,
    "list": _list,
    "dict": _dict,
    "array": _array,
    "struct": _struct,
}


def from_text(text: str, to: DataType) -> Any:
    """A value that was typed on a command line, before :func:`conform`.

    Text stays text where the type takes text; other types are read as JSON.

    Raises:
        ValueError: it cannot be read as that type.
    """
    if dt.accepts(to, "string") and not dt.accepts(to, "any"):
        return text
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        if dt.accepts(to, "any"):
            return text
        shown = text if len(text) <= 60 else text[:57] + "…"
        raise ValueError(f"expected {to}, got {shown!r}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a finite number")
