"""Symbols: what stands for a value while a workflow is traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from adjoin.dag import datatypes as dt
from adjoin.dag.binding import Reference
from adjoin.dag.datatypes import DataType
from adjoin.dag.names import INPUTS
from adjoin.dag.source import caller, location
from adjoin.errors import GraphError


class Symbol:
    """Stands for the result of a stage, an input, or a part of one.

    It can be passed to functions, and its parts can be named (``passages[0].text``). Everything
    that would need the value itself is a :class:`GraphError` that says where.
    """

    __slots__ = ("_reference", "_type")

    def __init__(self, reference: Reference, type: DataType) -> None:
        self._reference = reference
        self._type = type

    def __repr__(self) -> str:
        return f"<{self._reference}: {self._type}>"

    def __getattr__(self, name: str) -> Symbol:
        if name.startswith("_"):  # copy, numpy and debuggers look for these
            raise AttributeError(name)
        if self._type.kind == "dict":
            raise _refuse(self, f"asks it for {name!r}", f'write ["{name}"] for a key')
        return _part(self, name)

    def __getitem__(self, key: object) -> Symbol:
        if isinstance(key, str):
            return _part(self, key)
        if isinstance(key, int) and not isinstance(key, bool) and key >= 0:
            return _part(self, key)
        if isinstance(key, int):
            raise _refuse(self, "counts from its end", _FUNCTION)
        raise _refuse(self, "takes a slice of it", _FUNCTION)


_FUNCTION = "do that in a function decorated with @adjoin.function and use its result"


def _part(symbol: Symbol, key: str | int) -> Symbol:
    reference = symbol._reference
    try:
        found = dt.step(symbol._type, key)
    except dt.NoSuchStep as error:
        raise GraphError(
            f"{describe(symbol)}: {error}", where=location(caller()), hint=_FUNCTION
        ) from None
    return Symbol(Reference(reference.root, (*reference.path, key)), found)


def describe(symbol: Symbol) -> str:
    reference = symbol._reference
    if reference.root == INPUTS and len(reference.path) == 1:
        return f"input {str(reference.path[0])!r}"
    if not reference.path:
        return f"the result of stage {reference.root!r}"
    return str(reference)


def _refuse(symbol: Symbol, does: str, hint: str) -> GraphError:
    return GraphError(
        f"the workflow {does}, but {describe(symbol)} has no value until it runs",
        where=location(caller()),
        hint=hint,
    )


def _refusal(does: str) -> Callable[..., NoReturn]:
    def refuse(self: Symbol, *_: Any) -> NoReturn:
        raise _refuse(self, does, _FUNCTION)

    return refuse


#: What Python does to a value behind its syntax, and how to name that to the user.
_REFUSED = {
    "decides on a value (if, while, and, or, not)": "bool",
    "loops over a value (for, *, unpacking)": "iter next reversed",
    "takes the length of a value": "len length_hint",
    "looks whether a value contains something (in)": "contains",
    "compares a value": "eq ne lt le gt ge",
    "turns a value into text (str, format, an f-string)": "str format bytes",
    "turns a value into a number": "int float complex index round trunc floor ceil",
    "calculates with a value": (
        "add radd iadd sub rsub isub mul rmul imul truediv rtruediv floordiv rfloordiv mod rmod "
        "divmod rdivmod pow rpow matmul rmatmul and rand or ror xor rxor lshift rlshift rshift "
        "rrshift neg pos abs invert"
    ),
    "calls a value": "call",
    "changes a value": "setitem delitem",
    "awaits a value": "await aiter anext",
    "opens a value (with)": "enter exit aenter aexit",
}
for _does, _names in _REFUSED.items():
    for _name in _names.split():
        setattr(Symbol, f"__{_name}__", _refusal(_does))
Symbol.__hash__ = object.__hash__  # type: ignore[method-assign]
