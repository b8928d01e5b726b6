"""The part of Jinja that prompt templates have.

Templates are data of whoever writes a workflow, so nothing in them is trusted: only the statements,
filters, tests and methods named here exist; private attributes do not; loops, and whatever makes
values, pay from a budget of work, and what could multiply is computed before it is done.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

import jinja2
import msgspec
from jinja2 import filters, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from adjoin.types import Passage

MAX_SECONDS = 3.0
_MAX_WORK = 5_000_000  # characters and values made
_TICK = 10  # what one turn of a loop costs: half a million turns at most
_MAX_BITS = 4096  # of an integer


class Spent(Exception):
    """The budget is used up."""


class Budget:
    def __init__(self) -> None:
        self._left = _MAX_WORK
        self._deadline = time.monotonic() + MAX_SECONDS

    def spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0 or time.monotonic() > self._deadline:
            raise Spent

    def keep(self, value: Any) -> Any:
        """``value``, paid for."""
        self.spend(_weight(value, self._left))
        return value


budget: ContextVar[Budget] = ContextVar("adjoin_template_budget")


_SCALARS = frozenset({int, float, bool, type(None)})


def _weight(value: Any, most: int) -> int:
    """Characters and values in ``value``, counted until there are more than ``most``.

    Shared parts count as often as they would be printed.
    """
    weight, stack = 0, [value]
    while stack and weight <= most:
        item = stack.pop()
        weight += 1
        if type(item) in _SCALARS:
            continue
        if isinstance(item, str | bytes):
            weight += len(item)
        elif isinstance(item, list | tuple | set | frozenset):
            stack.extend(item)
        elif isinstance(item, Mapping):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, msgspec.Struct):
            stack.extend(getattr(item, name) for name in item.__struct_fields__)
        else:
            weight += int(getattr(item, "size", 0))  # an array
    return weight


# --- what a template may say ----------------------------------------------------------------------

_NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Assign),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.CondExpr),
    *(nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword, nodes.Getattr, nodes.Getitem),
    *(nodes.Slice, nodes.Compare, nodes.Operand, nodes.Concat, nodes.Not, nodes.And, nodes.Or),
    *(nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod),
    nodes.Pow,
)
# fmt: off
_METHODS = frozenset({
    "capitalize", "count", "endswith", "find", "get", "index", "items", "keys", "lower", "lstrip",
    "removeprefix", "removesuffix", "rsplit", "rstrip", "split", "splitlines", "startswith",
    "strip", "title", "upper", "values",
})
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "groupby", "int",
    "items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
    "reverse", "select", "selectattr", "sort", "sum", "title", "trim", "truncate", "unique",
    "upper", "wordcount",
)
_TESTS = (
    "defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true",
    "false", "mapping", "sequence", "iterable", "odd", "even", "divisibleby", "in", "eq", "ne",
    "lt", "le", "gt", "ge", "equalto", "lessthan", "greaterthan",
)
# fmt: on


class Guard(NodeTransformer):
    """Refuses what is not allowed, and makes loops and values pay."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if not isinstance(node, _NODES):
            raise jinja2.TemplateSyntaxError(
                f"{type(node).__name__.lower()} is not available in prompt templates", node.lineno
            )
        super().generic_visit(node, *args, **kwargs)
        return node

    def visit_Name(self, node: nodes.Name) -> nodes.Node:  # noqa: N802 - jinja's name
        if node.name.startswith("_") or node.name == "self":
            raise jinja2.TemplateSyntaxError(f"{node.name!r} is private", node.lineno)
        return self.generic_visit(node)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        if node.recursive:
            raise jinja2.TemplateSyntaxError("loops may not be recursive", node.lineno)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("__tick__", [], node), lineno=node.lineno))
        return node

    def _paid(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _call("__keep__", [node], node)

    visit_List = visit_Dict = _paid  # noqa: N815

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._paid(node) if node.ctx == "load" else self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("__concat__", node.nodes, node)


def _call(name: str, arguments: list[nodes.Expr], at: nodes.Node) -> nodes.Call:
    function = nodes.Name(name, "load", lineno=at.lineno)
    return nodes.Call(function, arguments, [], None, None, lineno=at.lineno)


class _Missing(jinja2.StrictUndefined):
    """Absent names and attributes are errors; what a mapping lacks may at least be asked for, as in
    ``{% if passage.metadata.page %}``."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        if isinstance(self._undefined_obj, Mapping):
            return False
        return super().__bool__()


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "+", "-", "/", "//", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        plain = isinstance(left, int | float) and isinstance(right, int | float)
        if not plain and operator != "+":
            raise SecurityError(f"{operator!r} is for numbers only")
        if plain and operator in {"*", "**"}:
            bits = [int(side).bit_length() for side in (left, right) if isinstance(side, int)]
            size = sum(bits) if operator == "*" else bits[0] * abs(right) if bits else 0
            if size > _MAX_BITS:
                raise SecurityError("a number is too large")
        return budget.get().keep(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "?")
        known = (
            __obj in _FUNCTIONS
            or (type(owner) in {str, dict, list, tuple} and name in _METHODS)
            or (isinstance(owner, LoopContext) and name in {"cycle", "changed"})
        )
        if not known:
            raise SecurityError(f"{name}() may not be called")
        return budget.get().keep(__context.call(__obj, *args, **kwargs))


def _tick() -> None:
    budget.get().spend(_TICK)


def _keep(value: Any) -> Any:
    return value  # the call itself pays


def _concat(*values: Any) -> str:
    return "".join(map(_text, values))


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    budget.get().spend(len(numbers))
    return numbers


_FUNCTIONS = (_tick, _keep, _concat, _range)


def _text(value: Any) -> str:
    """A value as a prompt shows it."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    budget.get().keep(value)
    if isinstance(value, Passage):
        return f"[{value.source}] {value.text}" if value.source else value.text
    if isinstance(value, list | tuple) and value and isinstance(value[0], Passage):
        return "\n\n".join(map(_text, value))
    return str(value)


@pass_context
def _finalize(context: Any, value: Any) -> str:
    text = value if isinstance(value, jinja2.Undefined) else _text(value)
    return str(text)


def _join(values: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    get = environment().getattr
    texts = [_text(get(value, attribute) if attribute else value) for value in values]
    budget.get().spend(len(texts) * len(separator))
    return separator.join(texts)


def _replace(value: Any, old: str, new: str) -> str:
    text = _text(value)
    budget.get().spend(text.count(old) * len(new) if old else len(text) * len(new))
    return text.replace(old, new)


def _indent(value: Any, width: int = 4, first: bool = False) -> str:
    text = _text(value)
    budget.get().spend((text.count("\n") + 1) * width)
    lines = text.replace("\n", "\n" + " " * width)
    return " " * width + lines if first else lines


def _round(value: float, digits: int = 0) -> float:
    return round(float(value), digits)


def _json(value: Any) -> str:
    return msgspec.json.encode(budget.get().keep(value)).decode()


def _paying(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def paid(*args: Any, **kwargs: Any) -> Any:
        return budget.get().keep(call(*args, **kwargs))

    return paid


@functools.cache
def environment() -> _Environment:
    made = _Environment(
        autoescape=False,
        undefined=_Missing,
        finalize=_finalize,
        optimized=False,  # nothing is computed before there is a budget
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = {"join": _join, "replace": _replace, "indent": _indent, "round": _round}
    own |= {"string": _text, "tojson": _json}
    known = {name: filters.FILTERS[name] for name in _FILTERS} | own
    made.filters = {name: _paying(call) for name, call in known.items()}
    made.tests = {name: made.tests[name] for name in _TESTS}
    made.globals = {
        "range": _range,
        "__tick__": _tick,
        "__keep__": _keep,
        "__concat__": _concat,
    }
    return made
