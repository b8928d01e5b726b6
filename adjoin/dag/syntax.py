"""The syntax of what stands in ``${…}``: a subset of CEL, as a tree with one written form.

The tree answers what an expression refers to and how it loops; ``adjoin.dag.parser`` reads it, and
``adjoin.dag.expression`` computes it with a CEL implementation, from the written form.
CEL: https://github.com/google/cel-spec.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from adjoin.dag.names import RESERVED

#: Functions that loop over a list with a variable of their own.
LOOPS = frozenset({"map", "filter", "all", "exists", "exists_one"})
PRECEDENCE = {
    sign: level
    for level, signs in enumerate(("||", "&&", "== != < <= > >= in", "+ -", "* / %"), 1)
    for sign in signs.split()
}
_UNARY, _MEMBER = 6, 7


@dataclass(frozen=True, slots=True)
class Constant:
    value: Any


@dataclass(frozen=True, slots=True)
class Name:
    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """A field or an item under a key that is written out: ``of.key``, ``of[0]``."""

    of: Node
    key: str | int


@dataclass(frozen=True, slots=True)
class Index:
    of: Node
    at: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A function; ``of`` is the value before its dot."""

    name: str
    args: tuple[Node, ...]
    of: Node | None = None


@dataclass(frozen=True, slots=True)
class Unary:
    operator: str
    of: Node


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Choice:
    """``condition ? yes : no``"""

    condition: Node
    yes: Node
    no: Node


@dataclass(frozen=True, slots=True)
class ListOf:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    items: tuple[tuple[Node, Node], ...]


Node: TypeAlias = Constant | Name | Part | Index | Call | Unary | Binary | Choice | ListOf | MapOf


def children(node: Node) -> Iterator[Node]:
    match node:
        case Part(of) | Unary(_, of):
            yield of
        case Index(one, two) | Binary(_, one, two):
            yield from (one, two)
        case Call(_, args, before):
            yield from args if before is None else (before, *args)
        case Choice(condition, yes, no):
            yield from (condition, yes, no)
        case ListOf(items):
            yield from items
        case MapOf(pairs):
            yield from (part for pair in pairs for part in pair)


def static_path(node: Node) -> tuple[str, tuple[str | int, ...]] | None:
    """Name and steps where the node is nothing else."""
    steps: list[str | int] = []
    while isinstance(node, Part):
        steps.append(node.key)
        node = node.of
    return (node.name, tuple(reversed(steps))) if isinstance(node, Name) else None


def from_path(root: str, path: tuple[str | int, ...]) -> Node:
    node: Node = Name(root)
    for key in path:
        node = Part(node, key)
    return node


def paths(
    node: Node, bound: frozenset[str] = frozenset()
) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """What the expression needs of what is around it: names with the longest steps known."""
    if (found := static_path(node)) is not None:
        if found[0] not in bound:
            yield found
    elif isinstance(node, Call) and node.name in LOOPS and node.of is not None:
        variable, *rest = node.args
        yield from paths(node.of, bound)
        inner = bound | {variable.name} if isinstance(variable, Name) else bound
        for part in rest:
            yield from paths(part, inner)
    else:
        for part in children(node):
            yield from paths(part, bound)


def loops(node: Node) -> int:
    """How many loops stand in each other, at most."""
    inner = max(map(loops, children(node)), default=0)
    if isinstance(node, Call) and node.name in LOOPS and node.of is not None:
        return max(loops(node.of), 1 + max(map(loops, node.args)))
    return inner


# --- writing ----------------------------------------------------------------------------------

IDENT = r"[A-Za-z_][A-Za-z0-9_]*"


def step_text(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    if re.fullmatch(IDENT, key) and key not in RESERVED:
        return f".{key}"
    return f"[{_quoted(key)}]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


NO_NAMES: Mapping[str, str] = {}


def text_of(node: Node, least: int = 0, names: Mapping[str, str] = NO_NAMES) -> str:
    """The one written form of a tree.

    Args:
        least: precedence below which it needs brackets.
        names: other names for functions.
    """
    text, precedence = _text(node, names)
    return text if precedence >= least else f"({text})"


def _text(node: Node, names: Mapping[str, str]) -> tuple[str, int]:
    def show(part: Node, least: int = 0) -> str:
        return text_of(part, least, names)

    match node:
        case Constant(value):
            return _constant(value)
        case Name(name):
            return name, _MEMBER
        case Part(of, key):
            return show(of, _MEMBER) + step_text(key), _MEMBER
        case Index(of, at):
            return f"{show(of, _MEMBER)}[{show(at)}]", _MEMBER
        case Call(name, args, before):
            start = "" if before is None else f"{show(before, _MEMBER)}."
            return f"{start}{names.get(name, name)}({', '.join(map(show, args))})", _MEMBER
        case Unary(operator, of):
            return f"{operator}{show(of, _UNARY)}", _UNARY
        case Binary(operator, left, right):
            level = PRECEDENCE[operator]
            return f"{show(left, level)} {operator} {show(right, level + 1)}", level
        case Choice(condition, yes, no):
            return f"{show(condition, 1)} ? {show(yes, 1)} : {show(no)}", 0
        case ListOf(items):
            return f"[{', '.join(map(show, items))}]", _MEMBER
        case MapOf(pairs):
            shown = (f"{show(key)}: {show(value)}" for key, value in pairs)
            return f"{{{', '.join(shown)}}}", _MEMBER


def _constant(value: Any) -> tuple[str, int]:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value], _MEMBER
    if isinstance(value, str):
        return _quoted(value), _MEMBER
    return repr(value), _MEMBER if value >= 0 and not repr(value).startswith("-") else _UNARY
