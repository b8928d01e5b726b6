"""Symbols: what stands for a value while a workflow is traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from adjoin.dag import datatypes as dt
from adjoin.dag import expression, syntax
from adjoin.dag.annotations import type_of
from adjoin.dag.binding import Expression, Reference, literal
from adjoin.dag.control import INDEX, ITEM
from adjoin.dag.datatypes import DataType
from adjoin.dag.names import INPUTS
from adjoin.dag.source import caller, location
from adjoin.dag.syntax import Binary, Call, Constant, ListOf, MapOf, Node, Part, Unary
from adjoin.dag.text import binding_of
from adjoin.errors import GraphError


@dataclass(frozen=True, eq=False)
class Element:
    """What one call of :func:`each` fans out over; two of them are different."""

    over: Any
    counts: bool


class Symbol:
    """Stands for the result of a stage, an input, or a part of one, or what is computed of them.

    It can be passed to functions, its parts can be named (``passages[0].text``), and operators
    make expressions of it: ``== != < <= > >= + - * / %``, and ``& | ~`` for and, or, not. They mean
    what they mean in CEL: integers divide to integers. Everything else that would need the value
    itself is a :class:`GraphError` that says where.
    """

    __slots__ = ("_binding", "_elements", "_type")

    def __init__(
        self,
        binding: Reference | Expression,
        type: DataType,
        elements: frozenset[Element] = frozenset(),
    ) -> None:
        self._binding = binding
        self._type = type
        self._elements = elements

    def __repr__(self) -> str:
        return f"<{self._binding}: {self._type}>"

    def __getattr__(self, name: str) -> Symbol:
        if name.startswith("_"):  # copy, numpy and debuggers look for these
            raise AttributeError(name)
        if self._type.kind == "dict" and self._type.fields is None:
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
    try:
        found = dt.step(symbol._type, key)
    except dt.NoSuchStep as error:
        raise GraphError(
            f"{describe(symbol)}: {error}", where=location(caller()), hint=_FUNCTION
        ) from None
    return Symbol(binding_of(Part(_node(symbol), key)), found, symbol._elements)


def describe(symbol: Symbol) -> str:
    binding = symbol._binding
    if isinstance(binding, Expression):
        return str(binding)
    if binding.root == INPUTS and len(binding.path) == 1:
        return f"input {str(binding.path[0])!r}"
    if symbol._elements:
        return f"the element {str(binding)!r}"
    if not binding.path:
        return f"the result of stage {binding.root!r}"
    return str(binding)


def _refuse(symbol: Symbol, does: str, hint: str) -> GraphError:
    return GraphError(
        f"the workflow {does}, but {describe(symbol)} has no value until it runs",
        where=location(caller()),
        hint=hint,
    )


# --- expressions ------------------------------------------------------------------------------


def _node(value: Any) -> Node:
    """The tree that stands for a symbol or a constant in an expression."""
    if isinstance(value, Symbol):
        if isinstance(value._binding, Expression):
            return expression.tree(value._binding.source)
        return syntax.from_path(value._binding.root, value._binding.path)
    if isinstance(value, list | tuple):
        return ListOf(tuple(map(_node, value)))
    if isinstance(value, Mapping):
        return MapOf(tuple((_node(key), _node(value[key])) for key in sorted(value)))
    return Constant(literal(value).value)


def elements_of(value: Any) -> frozenset[Element]:
    """What the symbols in a value fan out over."""
    if isinstance(value, Symbol):
        return value._elements
    if isinstance(value, list | tuple):
        return frozenset[Element]().union(*map(elements_of, value))
    if isinstance(value, Mapping):
        return frozenset[Element]().union(*map(elements_of, value.values()))
    return frozenset()


def _computed(
    make: Callable[..., Node], type_of: Callable[..., DataType], *operands: Any
) -> Symbol:
    """The symbol of an expression, after a look at its types and bounds."""
    try:
        type = type_of(*map(_type, operands))
        source = syntax.text_of(make(*map(_node, operands)))
        expression.tree(source)
    except (GraphError, dt.NoSuchStep) as error:
        hint = error.hint if isinstance(error, GraphError) else ""
        raise GraphError(
            error.message if isinstance(error, GraphError) else str(error),
            where=location(caller()),
            hint=hint or _FUNCTION,
        ) from None
    return Symbol(Expression(source), type, elements_of(operands))


def _type(value: Any) -> DataType:
    return value._type if isinstance(value, Symbol) else type_of(value)


def _binary(operator: str, left: Any, right: Any) -> Symbol:
    return _computed(
        partial(Binary, operator),
        partial(expression.type_of_binary, operator),
        _alike(left, right),
        _alike(right, left),
    )


def _alike(value: Any, other: Any) -> Any:
    """A whole number beside a symbol for a number is written as one: CEL does not convert."""
    if type(value) is int and isinstance(other, Symbol) and other._type == dt.NUMBER:
        return float(value)
    return value


def _operator(symbol: str) -> Callable[[Symbol, Any], Symbol]:
    return lambda self, other: _binary(symbol, self, other)


def _reflected(symbol: str) -> Callable[[Symbol, Any], Symbol]:
    return lambda self, other: _binary(symbol, other, self)


def _unary(symbol: str) -> Callable[[Symbol], Symbol]:
    type_of = partial(expression.type_of_unary, symbol)
    return lambda self: _computed(partial(Unary, symbol), type_of, self)


_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "mod": "%"}
_OPERATORS = {**_ARITHMETIC, "and": "&&", "or": "||"}
for _name, _sign in {**_COMPARISONS, **_OPERATORS}.items():
    setattr(Symbol, f"__{_name}__", _operator(_sign))
for _name, _sign in _OPERATORS.items():
    setattr(Symbol, f"__r{_name}__", _reflected(_sign))
for _name, _sign in {"invert": "!", "neg": "-"}.items():
    setattr(Symbol, f"__{_name}__", _unary(_sign))


def size(value: Any) -> Any:
    """The length of a list, dict or text that a workflow has: ``adjoin.size(passages) > 2``."""
    if not isinstance(value, Symbol):
        return len(value)
    return _computed(lambda of: Call("size", (of,)), lambda _: dt.INTEGER, value)


def each(over: Any) -> Any:
    """One element of a list, or one number from 0 to a number: the call that takes it fans out.

    ``answers = solve(adjoin.each(parts), passages=passages)`` calls ``solve`` once for each part;
    ``answers`` is the list of results, in order. ``adjoin.each(8)`` gives the index of one of 8.

    Raises:
        GraphError: it is neither a list nor a number.
    """
    kind = _type(over)
    if kind.kind == "integer":
        return Symbol(Reference(INDEX), dt.INTEGER, frozenset([Element(over, True)]))
    if kind.kind not in ("list", "any"):
        shown = describe(over) if isinstance(over, Symbol) else repr(over)[:60]
        raise GraphError(
            f"each takes a list or a number, but {shown} is {kind}", where=location(caller())
        )
    item = kind.args[0] if kind.args else dt.ANY
    return Symbol(Reference(ITEM), item, frozenset([Element(over, False)]))


@dataclass(frozen=True)
class Until:
    """When a stage that repeats is done; made by :func:`until`."""

    condition: Callable[..., Any]
    max: int
    carry: str


def until(condition: Callable[..., Any], *, max: int, carry: str = "") -> Until:
    """A loop for ``.options(repeat=…)``: until a condition on the result, at most ``max`` times.

    ``step.options(repeat=adjoin.until(lambda result: result.done, max=5))(thoughts=[])``

    Args:
        condition: takes a symbol for an iteration's result and, where it has a second parameter,
            one for its number from 1; returns an expression.
        max: how often the function is called, at most: 1 to 1000.
        carry: the argument that the result becomes in the next iteration; without one, the parts of
            the result become the arguments of their names.
    """
    return Until(condition, max, carry)


# --- what Python does to a value --------------------------------------------------------------


def _refusal(does: str, hint: str) -> Callable[..., NoReturn]:
    def refuse(self: Symbol, *_: Any) -> NoReturn:
        raise _refuse(self, does, hint)

    return refuse


_WHEN = "give the call that depends on it a condition: .options(when=…); & | ~ are and, or, not"
_EACH = "call a function for each element: adjoin.each(…)"
#: What Python does to a value behind its syntax, how to name that to the user, and what to do.
_REFUSED = {
    "bool": ("decides on a value (if, while, and, or, not)", _WHEN),
    "iter next reversed": ("loops over a value (for, *, unpacking)", _EACH),
    "len length_hint": ("takes the length of a value", "write adjoin.size(…)"),
    "contains": ("looks whether a value contains something (in)", _FUNCTION),
    "str format bytes": (
        "turns a value into text (str, format, an f-string)",
        "put it into a prompt template; or do that in a function decorated with @adjoin.function",
    ),
    "int float complex index round trunc floor ceil": ("turns a value into a number", _FUNCTION),
    (
        "floordiv rfloordiv divmod rdivmod pow rpow matmul rmatmul xor rxor lshift rlshift rshift "
        "rrshift pos abs"
    ): ("calculates with a value", _FUNCTION),
    "call": ("calls a value", _FUNCTION),
    "setitem delitem": ("changes a value", _FUNCTION),
    "await aiter anext": ("awaits a value", _FUNCTION),
    "enter exit aenter aexit": ("opens a value (with)", _FUNCTION),
}
for _names, (_does, _hint) in _REFUSED.items():
    for _name in _names.split():
        setattr(Symbol, f"__{_name}__", _refusal(_does, _hint))
Symbol.__hash__ = object.__hash__  # type: ignore[method-assign]
