"""How large a value is, roughly and without encoding it: what costs are learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

#: Items of one container that are looked at, evenly spread; the others count like them.
_SAMPLED = 16
_DEPTH = 8


def nbytes_of(value: Any, depth: int = _DEPTH) -> int:
    """About as many bytes as the value's texts, numbers and arrays take."""
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, np.ndarray | memoryview):
        return value.nbytes
    if depth == 0 or value is None or isinstance(value, int | float):
        return 8
    if isinstance(value, Mapping):
        return _sum([*value.keys()], depth) + _sum([*value.values()], depth)
    if isinstance(value, list | tuple | set | frozenset):
        return _sum(list(value), depth)
    if isinstance(value, msgspec.Struct):
        return _sum([getattr(value, name) for name in value.__struct_fields__], depth)
    return _sum(list(getattr(value, "__dict__", {}).values()), depth) or 8


def _sum(items: list[Any], depth: int) -> int:
    looked = items[:: max(1, len(items) // _SAMPLED)]
    total = sum(nbytes_of(item, depth - 1) for item in looked)
    return total * len(items) // len(looked) if looked else 0
