"""YAML as a tree that remembers lines and columns, and nothing that a workflow has no use for.

Built from the parser's events: tags, anchors, aliases, duplicate keys and further documents are
refused, size and depth are bounded, and scalars are those of YAML 1.2's core schema.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from ruamel.yaml.reader import ReaderError

from adjoin.dag.names import suggest
from adjoin.errors import DefinitionError, YamlError

MAX_BYTES = 1_000_000
MAX_DEPTH = 40

_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,40}")
_BASED = re.compile(r"0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Node:
    """A scalar, a list of nodes or a dict of nodes, with where it starts (counted from one).

    Attributes:
        keys: of a dict, where each key stands.
    """

    value: Any
    file: str
    line: int
    column: int
    keys: dict[str, Node] = field(default_factory=dict)

    def error(self, message: str, hint: str = "", **details: Any) -> YamlError:
        found = YamlError.at(self.file, self.line, self.column, message, hint)
        found.details |= details
        return found

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Give errors of the definition that have no place of their own the place of this node."""
        try:
            yield
        except YamlError:
            raise
        except DefinitionError as error:
            where = f" ({error.where})" if error.where else ""
            raise self.error(error.message + where, error.hint, **error.details) from None

    def plain(self) -> Any:
        """The plain data that the node holds."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def mapping(self, what: str) -> dict[str, Node]:
        if not isinstance(self.value, dict):
            raise self.error(f"{what} must be a mapping of names to values")
        return self.value

    def fields(self, what: str, known: Iterable[str], required: Iterable[str] = ()) -> _Fields:
        """The mapping's entries, after a look at which keys there are."""
        found = self.mapping(what)
        known = tuple(known)
        for key in found:
            if key not in known:
                raise self.keys[key].error(f"{what} has no key {key[:80]!r}", suggest(key, known))
        for key in required:
            if key not in found:
                raise self.error(f"{what} needs the key {key!r}")
        return found

    def text(self, what: str) -> str:
        if not isinstance(self.value, str):
            raise self.error(f"{what} must be a text", "put it in quotes")
        return self.value

    def integer(self, what: str, minimum: int, maximum: int) -> int:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self.error(f"{what} must be a whole number from {minimum} to {maximum}")
        return value


_Fields = dict[str, Node]


def parse(text: str, file: str) -> Node:
    """The tree of a YAML text.

    Raises:
        YamlError: it is not one plain document, or too large or deep.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise YamlError.at(file, 1, 1, f"the text is larger than {MAX_BYTES} bytes")
    try:
        return _Builder(file, YAML(typ="safe", pure=True).parse(text)).document()
    except ReaderError as error:
        line, column = _position(text, error.position)
        raise YamlError.at(
            file, line, column, f"a character is not allowed: {error.reason}"
        ) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        context = f"{error.context}: " if error.context else ""
        raise YamlError.at(
            file, line, column, f"not valid YAML: {context}{error.problem or 'unreadable'}"
        ) from None
    except (YAMLError, RecursionError, ValueError) as error:
        raise YamlError.at(file, 1, 1, f"not valid YAML: {error}") from None


def _position(text: str, index: int) -> tuple[int, int]:
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1


class _Builder:
    def __init__(self, file: str, events: Iterator[Event]) -> None:
        self.file = file
        self.events = events

    def document(self) -> Node:
        found: Node | None = None
        for event in self.events:
            if isinstance(event, StreamStartEvent | StreamEndEvent | DocumentEndEvent):
                continue
            if isinstance(event, DocumentStartEvent):
                if found is not None:
                    raise self._error(event, "a second document", "write one workflow in a file")
                if event.tags:
                    raise self._error(event, "a tag directive", "remove it")
                continue
            found = self._node(event, MAX_DEPTH)
        if found is None:
            raise YamlError.at(self.file, 1, 1, "the text is empty")
        return found

    def _node(self, event: Event, depth: int) -> Node:
        self._check(event, depth)
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, ScalarEvent):
            return Node(self._scalar(event), self.file, line, column)
        if isinstance(event, SequenceStartEvent):
            items = []
            while not isinstance(event := next(self.events), SequenceEndEvent):
                items.append(self._node(event, depth - 1))
            return Node(items, self.file, line, column)
        values: dict[str, Node] = {}
        keys: dict[str, Node] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            key = self._node(event, 0)
            name = key.text("a key")
            if name in values:
                raise key.error(
                    f"the key {name[:80]!r} is there twice", f"first on line {keys[name].line}"
                )
            keys[name] = key
            values[name] = self._node(next(self.events), depth - 1)
        return Node(values, self.file, line, column, keys)

    def _check(self, event: Event, depth: int) -> None:
        if isinstance(event, AliasEvent):
            raise self._error(event, "an alias (*)", "write the value out")
        if isinstance(event, NodeEvent) and event.anchor is not None:
            raise self._error(event, "an anchor (&)", "write the value out")
        if getattr(event, "ctag", None) is not None:
            raise self._error(event, "a tag (!)", "remove it")
        if depth <= 1 and isinstance(event, SequenceStartEvent | MappingStartEvent):
            what = f"more than {MAX_DEPTH} levels" if depth else "a list or mapping as a key"
            raise self._error(event, what, "write it flatter")

    def _scalar(self, event: ScalarEvent) -> Any:
        value: str = event.value
        if event.style is not None:
            return value
        if value in _CONSTANTS:
            return _CONSTANTS[value]
        if _INTEGER.fullmatch(value):
            return int(value)
        if _BASED.fullmatch(value):
            return int(value, 0)
        if _NOT_FINITE.fullmatch(value) or (
            _FLOAT.fullmatch(value) and not math.isfinite(float(value))
        ):
            raise self._error(event, "a number that is not finite")
        return float(value) if _FLOAT.fullmatch(value) else value

    def _error(self, event: Event, what: str, hint: str = "") -> YamlError:
        mark = event.start_mark
        return YamlError.at(
            self.file, mark.line + 1, mark.column + 1, f"{what} is not allowed here", hint
        )
