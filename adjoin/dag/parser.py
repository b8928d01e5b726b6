"""Reads what stands in ``${…}``: from text to the tree of ``adjoin.dag.syntax``, within bounds."""

from __future__ import annotations

import json
import re
from typing import Any

from adjoin.dag.names import RESERVED, suggest
from adjoin.dag.syntax import (
    IDENT,
    LOOPS,
    PRECEDENCE,
    Binary,
    Call,
    Choice,
    Constant,
    Index,
    ListOf,
    MapOf,
    Name,
    Node,
    Part,
    Unary,
    loops,
)

MAX_SOURCE = 4096
#: Of brackets, operators without an operand to their left, and branches in each other.
MAX_DEPTH = 32
#: Operators or steps in a row.
MAX_CHAIN = 200
#: How many loops may stand in each other; each one multiplies the work.
MAX_LOOPS = 2
#: How many arguments each function takes, the value before its dot included.
FUNCTIONS = {
    **dict.fromkeys(("size", "int", "double", "string", "has"), 1),
    **dict.fromkeys(("contains", "startsWith", "endsWith"), 2),
}
_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)"
    rf"|(?P<int>\d+)(?![A-Za-z_])|(?P<name>{IDENT})"
    r"|(?P<double>\"(?:[^\"\\]|\\.)*\")|'(?P<single>[^'\\]*)'"
    r"|(?P<mark>&&|\|\||[=!<>]=|[-+*/%<>!?:.,()\[\]{}]))",
    re.DOTALL,
)
_WORDS = {"true": True, "false": False, "null": None}


class SyntaxProblem(Exception):
    """The text is no expression; the message says why, ``hint`` what to do where that is known."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def parse(text: str, at: int = 0) -> tuple[Node, int]:
    """The tree of the expression that starts at a position, and where it ends.

    It ends before the first mark that cannot belong to it, such as the brace of ``${…}``.

    Raises:
        SyntaxProblem: there is no expression, or it is too long or deep.
    """
    parser = _Parser(text, at)
    node = parser.expression(MAX_DEPTH)
    if parser.start - at > MAX_SOURCE:
        raise SyntaxProblem(f"an expression has at most {MAX_SOURCE} characters", _FUNCTION)
    if loops(node) > MAX_LOOPS:
        raise SyntaxProblem(f"more than {MAX_LOOPS} loops in each other", _FUNCTION)
    return node, parser.start


_FUNCTION = "compute it in a function"


class _Parser:
    """Recursive descent over the next token: ``kind``, its ``text``, and where it starts."""

    def __init__(self, source: str, at: int) -> None:
        self.source = source
        self.end = at
        self.next()

    def next(self) -> None:
        found = _TOKEN.match(self.source, self.end)
        if found is None:
            rest = re.compile(r"\s*").match(self.source, self.end)
            self.start = rest.end() if rest else self.end
            self.kind, self.text = "", self.source[self.start : self.start + 1]
            return
        self.kind = str(found.lastgroup)
        self.text = found[self.kind]
        self.start, self.end = found.start(self.kind) - (self.kind == "single"), found.end()

    def takes(self, mark: str) -> bool:
        """Whether the mark comes next; it is then passed."""
        if self.kind != "mark" or self.text != mark:
            return False
        self.next()
        return True

    def needs(self, mark: str) -> None:
        if not self.takes(mark):
            shown = repr(self.text) if self.text else "the end"
            raise SyntaxProblem(f"expected {mark!r} before {shown}")

    def expression(self, depth: int) -> Node:
        if depth == 0:
            raise SyntaxProblem(f"nested more than {MAX_DEPTH} levels deep", _FUNCTION)
        condition = self.binary(1, depth)
        if not self.takes("?"):
            return condition
        yes = self.binary(1, depth - 1)
        self.needs(":")
        return Choice(condition, yes, self.expression(depth - 1))

    def binary(self, least: int, depth: int) -> Node:
        left = self.unary(depth)
        for _ in range(MAX_CHAIN):
            level = PRECEDENCE.get(self.text, 0) if self.kind in ("mark", "name") else 0
            if level < least:
                return left
            operator = self.text
            self.next()
            left = Binary(operator, left, self.binary(level + 1, depth))
        raise SyntaxProblem(f"more than {MAX_CHAIN} operators in a row", _FUNCTION)

    def unary(self, depth: int) -> Node:
        if depth == 0:
            raise SyntaxProblem(f"nested more than {MAX_DEPTH} levels deep", _FUNCTION)
        if self.takes("!"):
            return Unary("!", self.unary(depth - 1))
        if self.takes("-"):
            of = self.unary(depth - 1)
            number = isinstance(of, Constant) and type(of.value) in (int, float)
            return Constant(-of.value) if number and isinstance(of, Constant) else Unary("-", of)
        return self.member(depth)

    def member(self, depth: int) -> Node:
        node = self.primary(depth)
        for _ in range(MAX_CHAIN):
            if self.takes("."):
                node = self.after_dot(node, depth)
            elif self.takes("["):
                at = self.expression(depth - 1)
                self.needs("]")
                node = _indexed(node, at)
            else:
                return node
        raise SyntaxProblem(f"more than {MAX_CHAIN} steps in a row", _FUNCTION)

    def after_dot(self, node: Node, depth: int) -> Node:
        name = self.name()
        if self.takes("("):
            return _call(name, self.several(")", depth), node)
        return Part(node, name)

    def name(self) -> str:
        if self.kind != "name":
            raise SyntaxProblem("expected a name")
        name = self.text
        if name in RESERVED:
            raise SyntaxProblem(f"expressions use the word {name!r}", f'write ["{name}"]')
        self.next()
        return name

    def several(self, end: str, depth: int) -> tuple[Node, ...]:
        found: list[Node] = []
        while not self.takes(end):
            if found:
                self.needs(",")
            found.append(self.expression(depth - 1))
        return tuple(found)

    def primary(self, depth: int) -> Node:
        kind, text = self.kind, self.text
        if kind == "mark":
            if self.takes("("):
                node = self.expression(depth - 1)
                self.needs(")")
                return node
            if self.takes("["):
                return ListOf(self.several("]", depth))
            if self.takes("{"):
                return MapOf(self.pairs(depth))
        elif kind == "name" and text not in _WORDS:
            name = self.name()
            return _call(name, self.several(")", depth), None) if self.takes("(") else Name(name)
        elif kind:
            self.next()
            return Constant(_value(kind, text))
        raise SyntaxProblem(f"expected a value before {text!r}" if text else "expected a value")

    def pairs(self, depth: int) -> tuple[tuple[Node, Node], ...]:
        found: list[tuple[Node, Node]] = []
        while not self.takes("}"):
            if found:
                self.needs(",")
            key = self.expression(depth - 1)
            self.needs(":")
            found.append((key, self.expression(depth - 1)))
        return tuple(found)


def _value(kind: str, text: str) -> Any:
    if kind == "name":
        return _WORDS[text]
    if kind == "single":
        return text
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        raise SyntaxProblem(f"{text[:60]} is not a quoted text or a number") from None
    if value == float("inf") or (isinstance(value, int) and value >= 2**63):
        raise SyntaxProblem(f"{text[:24]} is too large")
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise SyntaxProblem("a text holds a lone surrogate, which is not valid Unicode")
    return value


def _indexed(node: Node, at: Node) -> Node:
    if not isinstance(at, Constant) or type(at.value) not in (str, int):
        return Index(node, at)
    if type(at.value) is int and at.value < 0:
        raise SyntaxProblem("a position counts from the start", _FUNCTION)
    return Part(node, at.value)


def _call(name: str, args: tuple[Node, ...], of: Node | None) -> Node:
    given = len(args) + (of is not None)
    if name in LOOPS and of is not None:
        if given not in ((3, 4) if name == "map" else (3,)) or not isinstance(args[0], Name):
            raise SyntaxProblem(f"write list.{name}(x, …)")
        if not _is_bounded(of):
            raise SyntaxProblem(f"{name!r} loops over a computed list", _FUNCTION)
    elif name not in FUNCTIONS:
        hint = suggest(name, {*FUNCTIONS, *LOOPS})
        raise SyntaxProblem(f"there is no function {name!r} in expressions", hint)
    elif given != FUNCTIONS[name]:
        raise SyntaxProblem(f"{name!r} takes {FUNCTIONS[name]} values, got {given}")
    elif name == "has" and not (of is None and isinstance(args[0], Part)):
        raise SyntaxProblem("write has(value.field)")
    return Call(name, args, of)


def _is_bounded(node: Node) -> bool:
    """Whether a list cannot be longer than one that is handed in or written out."""
    if isinstance(node, Call):
        return node.name in ("map", "filter") and node.of is not None
    return isinstance(node, Name | Part | Index | ListOf)
