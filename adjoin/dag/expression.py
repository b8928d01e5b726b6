"""Expressions: what they refer to, what type they have, and their value.

Computed by a CEL implementation within bounds: it is handed plain data only, of what the expression
refers to only that part, and no long lists where the expression loops.
"""

from __future__ import annotations

import functools
import math
from collections import ChainMap
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from adjoin.dag import datatypes as dt
from adjoin.dag import syntax
from adjoin.dag.annotations import type_of
from adjoin.dag.datatypes import DataType
from adjoin.dag.parser import SyntaxProblem, parse
from adjoin.dag.syntax import Binary, Call, Choice, Constant, Index, ListOf, Name, Node, Part, Unary
from adjoin.errors import GraphError, InputError

#: Items of a list that an expression is handed: without loops, in a loop, in two of them. The CEL
#: implementation copies a list for each item that a loop adds.
MAX_ITEMS = (10_000, 1_000, 100)
#: Values and characters of text in all, and levels of lists and maps in each other.
MAX_VALUES, MAX_CHARACTERS, MAX_DEPTH = 100_000, 1_000_000, 32
_INTEGERS = range(-(2**63), 2**63)

Path = tuple[str, tuple[str | int, ...]]


@functools.lru_cache(maxsize=4096)
def tree(source: str) -> Node:
    """Raises :class:`GraphError` when the text is no expression."""
    try:
        node, end = parse(source)
    except SyntaxProblem as error:
        raise GraphError(
            f"{source[:60]!r} is not an expression: {error}", hint=error.hint
        ) from None
    if source[end:].strip():
        raise GraphError(
            f"{source[:60]!r} is not an expression: {source[end : end + 20]!r} is left"
        )
    return node


@functools.lru_cache(maxsize=4096)
def paths(source: str) -> tuple[Path, ...]:
    """What the expression refers to, each once."""
    return tuple(dict.fromkeys(syntax.paths(tree(source))))


@functools.lru_cache(maxsize=4096)
def _program(source: str) -> Any:
    import cel

    # the implementation counts a text's bytes
    text = syntax.text_of(tree(source), names={"size": "length"})
    try:
        return cel.compile(text)
    except ValueError as error:
        detail = str(error).partition("ERROR: ")[2].partition("\n")[0]
        raise GraphError(f"{source[:60]!r} is not an expression: {detail}") from None


def check(source: str) -> None:
    """Raise :class:`GraphError` when the text is no expression that can be computed."""
    _program(source)


# --- values -----------------------------------------------------------------------------------


def compute(source: str, scope: Mapping[str, Any]) -> Any:
    """The value of an expression: plain data.

    Raises:
        InputError: it has none with these values, or they are too large or no plain data.
    """
    import cel

    program = _program(source)
    most = MAX_ITEMS[syntax.loops(tree(source))]
    try:
        given = _given(source, scope, most)
        context = cel.Context(variables=given, functions={"length": _length})
        return _result(program.execute(context))
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"${{{source[:80]}}} cannot be computed: {_reason(error)}",
            hint="test what may be null or missing with == null and has(…); convert numbers with "
            "int(…) and double(…)",
        ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no {error}"
    text = str(error).partition("\n")[0]
    if isinstance(error, TypeError) and ("overload" in text or "nsupported operation" in text):
        return "an operator does not take these values"
    return text.partition(". ")[0][:200]


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, str | list | dict) else None


def _result(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the result is not a finite number")
    if isinstance(value, list):
        return [_result(item) for item in value]
    if isinstance(value, dict):
        return {key: _result(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"the result is a {type(value).__name__}, which is no plain data")


def _given(source: str, scope: Mapping[str, Any], most: int) -> dict[str, Any]:
    wanted: dict[str, list[tuple[str | int, ...]]] = {}
    for root, path in paths(source):
        wanted.setdefault(root, []).append(path)
    plain = _Plain(most)
    return {root: plain.project(scope[root], below, MAX_DEPTH) for root, below in wanted.items()}


class _Plain:
    """Makes plain data of values, within bounds."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.left = MAX_VALUES
        self.characters = MAX_CHARACTERS

    def project(self, value: Any, wanted: list[tuple[str | int, ...]], depth: int) -> Any:
        """Of a value the parts on these paths; what is not there is left out."""
        if () in wanted:
            return self.whole(value, depth)
        below: dict[str | int, list[tuple[str | int, ...]]] = {}
        for key, *rest in wanted:
            below.setdefault(key, []).append(tuple(rest))
        if isinstance(value, list | tuple):
            length = max((key + 1 for key in below if isinstance(key, int)), default=0)
            items = value[: min(length, self.most)]
            return [
                self.project(item, below[index], depth - 1) if index in below else None
                for index, item in enumerate(items)
            ]
        if isinstance(value, str | int | float | bytes | np.ndarray) or value is None:
            return self.whole(value, depth)
        fields = _fields(value)
        return {
            key: self.project(fields[key], rest, depth - 1)
            for key, rest in below.items()
            if key in fields
        }

    def whole(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if self.left < 0 or depth < 0:
            raise ValueError(f"more than {MAX_VALUES} values or {MAX_DEPTH} levels")
        if isinstance(value, str):
            self.characters -= len(value)
            if self.characters < 0:
                raise ValueError(f"more than {MAX_CHARACTERS} characters of text")
            return value
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            if value not in _INTEGERS:
                raise ValueError("a number does not fit into 64 bits")
            return value
        if isinstance(value, list | tuple):
            if len(value) > self.most:
                raise ValueError(f"a list has {len(value)} items, here at most {self.most}")
            return [self.whole(item, depth - 1) for item in value]
        return {key: self.whole(item, depth - 1) for key, item in _fields(value).items()}


def _fields(value: Any) -> Mapping[Any, Any]:
    """The fields of a map or structure by name."""
    if isinstance(value, Mapping):
        return value
    names = next((found for attr in _FIELDS if (found := getattr(type(value), attr, None))), None)
    if names is None:
        raise TypeError(f"a value is a {type(value).__name__}; compute with it in a function")
    return {name: getattr(value, name) for name in names if not name.startswith("_")}


_FIELDS = ("__struct_fields__", "__dataclass_fields__", "model_fields", "_fields")


# --- types ------------------------------------------------------------------------------------


def infer(source: str, types: Mapping[str, DataType]) -> DataType:
    """The type of an expression, ``any`` where only its value shows it.

    Raises:
        GraphError: a path does not exist in a type, or no value can be computed with.
    """
    try:
        return _infer(tree(source), types)
    except dt.NoSuchStep as error:
        raise GraphError(f"${{{source[:80]}}}: {error}") from None


def _infer(node: Node, types: Mapping[str, DataType]) -> DataType:
    match node:
        case Constant(value):
            return type_of(value)
        case Name(name):
            return types.get(name, dt.ANY)
        case Part(of, key):
            return dt.step(without_null(_infer(of, types)), key)
        case Index(of, at):
            _infer(at, types)
            return _item(_infer(of, types))
        case Unary(operator, of):
            return type_of_unary(operator, _infer(of, types))
        case Binary(operator, left, right):
            return type_of_binary(operator, _infer(left, types), _infer(right, types))
        case Choice(condition, yes, no):
            _infer(condition, types)
            return dt.union(_infer(yes, types), _infer(no, types))
        case ListOf(items):
            return dt.list_of(dt.union(*(_infer(item, types) for item in items)))
        case Call():
            return _call(node, types)
    values = [_infer(value, types) for pair in node.items for value in pair][1::2]
    return dt.dict_of(dt.union(*values))


def without_null(of: DataType) -> DataType:
    """The type without null: expressions are computed with what is there."""
    kept = [member for member in dt.members(of) if member.kind != "null"]
    return dt.union(*kept) if kept and of.kind == "union" else of


def _item(of: DataType) -> DataType:
    of = without_null(of)
    return of.args[-1] if of.kind in ("list", "dict") else dt.ANY


def type_of_unary(operator: str, of: DataType) -> DataType:
    """Raises :class:`NoSuchStep` where no value can be computed with."""
    _require(f"{operator} {of}", dt.BOOLEAN if operator == "!" else dt.NUMBER, of)
    return dt.BOOLEAN if operator == "!" else without_null(of)


def type_of_binary(operator: str, left: DataType, right: DataType) -> DataType:
    """Raises :class:`NoSuchStep` where no values can be computed with."""
    left, right = without_null(left), without_null(right)
    shown = f"{left} {operator} {right}"
    if operator in ("&&", "||"):
        _require(shown, dt.BOOLEAN, left, right)
    elif operator in ("-", "*", "/", "%"):
        _require(shown, dt.NUMBER, left, right)
    elif operator not in ("==", "!=", "in"):
        _require_alike(shown, left, right)
    if syntax.PRECEDENCE[operator] <= syntax.PRECEDENCE["in"]:
        return dt.BOOLEAN
    if left.kind == right.kind == "list":
        return dt.list_of(dt.union(left.args[0], right.args[0]))
    if left == right and left.kind in ("integer", "number", "string"):
        return left
    if {left.kind, right.kind} == {"integer", "number"}:
        raise dt.NoSuchStep(f"{shown} cannot be computed: convert one with double(…) or int(…)")
    return dt.ANY


def _require(shown: str, wanted: DataType, *operands: DataType) -> None:
    """Refuse what no values can do: ``-text``, ``passages && true``."""
    for of in operands:
        if not any(dt.assignable(member, wanted) for member in dt.members(without_null(of))):
            raise dt.NoSuchStep(f"{shown} cannot be computed")


def _require_alike(shown: str, left: DataType, right: DataType) -> None:
    """Refuse what no values can do: ``text < 1``, ``passages + 1``."""
    one, two = (
        {"number" if member.kind == "integer" else member.kind for member in dt.members(of)}
        for of in (left, right)
    )
    if not one & two and "any" not in one | two:
        raise dt.NoSuchStep(f"{shown} cannot be computed")


def _call(node: Call, types: Mapping[str, DataType]) -> DataType:
    if node.name in syntax.LOOPS and node.of is not None:
        return _loop(node, node.of, types)
    if node.name == "has":  # asks for a part that may not be there
        return dt.BOOLEAN
    for part in syntax.children(node):
        _infer(part, types)
    return _RETURNS.get(node.name, dt.BOOLEAN)


_RETURNS = {"size": dt.INTEGER, "int": dt.INTEGER, "double": dt.NUMBER, "string": dt.STRING}


def _loop(node: Call, over: Node, types: Mapping[str, DataType]) -> DataType:
    variable, *rest = node.args
    looped = without_null(_infer(over, types))
    item = looped.args[0] if looped.kind in ("list", "dict") else dt.ANY
    # the syntax has seen to it that the variable is a name
    name = variable.name if isinstance(variable, Name) else ""
    inner = ChainMap({name: item}, cast("dict[str, DataType]", types))
    found = [_infer(part, inner) for part in rest]
    match node.name:
        case "map":
            return dt.list_of(found[-1])
        case "filter":
            return dt.list_of(item)
    return dt.BOOLEAN
