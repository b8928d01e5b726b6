"""How bindings are written in workflow texts, and read from them: ``${…}`` in plain data."""

from __future__ import annotations

import re
from typing import Any

from adjoin.dag import syntax
from adjoin.dag.annotations import Template
from adjoin.dag.binding import (
    Binding,
    Expression,
    Fields,
    Interpolation,
    Items,
    Literal,
    Reference,
    literal,
)
from adjoin.dag.parser import SyntaxProblem, parse
from adjoin.errors import GraphError

#: Where a reference or an escape may start: two dollars before a brace stand for one.
_MARK = re.compile(r"\$+(?=\{)")
#: Dollars at the end of a text part, which a reference follows.
_TRAILING = re.compile(r"\$+\Z")

Part = str | Reference | Expression


def binding_of(node: syntax.Node) -> Reference | Expression:
    """What an expression's tree means: a plain path is a reference."""
    path = syntax.static_path(node)
    return Expression(syntax.text_of(node)) if path is None else Reference(*path)


def parse_text(text: str) -> Binding:
    """The binding that a written text means: a reference, a text with references, or itself.

    Before ``{``, ``$$`` stands for ``$``: ``$${`` is a plain ``${``.

    Raises:
        GraphError: what stands between ``${`` and ``}`` is not an expression.
    """
    parts: list[Part] = []
    at = 0
    while mark := _MARK.search(text, at):
        pairs, single = divmod(len(mark[0]), 2)
        _append(parts, text[at : mark.start()] + "$" * pairs)
        at = mark.end()
        if single:
            found, at = _parse_part(text, mark.end() - 1)
            parts.append(found)
    _append(parts, text[at:])
    if all(isinstance(part, str) for part in parts):
        return literal("".join(map(str, parts)))
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0]
    return Interpolation(tuple(parts))


def _append(parts: list[Part], text: str) -> None:
    if parts and isinstance(last := parts[-1], str):
        parts[-1] = last + text
    elif text:
        parts.append(text)


def _parse_part(text: str, at: int) -> tuple[Reference | Expression, int]:
    try:
        node, end = parse(text, at + 2)
        if text[end : end + 1] != "}":
            raise SyntaxProblem(
                f"expected '}}' before {text[end : end + 20]!r}" if text[end:] else "'}' is missing"
            )
    except SyntaxProblem as error:
        raise GraphError(
            f"{text[at : at + 60]!r} is not an expression: {error}",
            hint=error.hint
            or "such as ${inputs.name}, ${stage.field}, ${stage[0].score > 0.5}; $${ is a plain ${",
        ) from None
    return binding_of(node), end + 1


def write_text(text: str) -> str:
    """The inverse of :func:`parse_text` for a constant text."""
    return _MARK.sub(_doubled, text)


def _doubled(mark: re.Match[str]) -> str:
    return mark[0] * 2


def write(binding: Binding) -> Any:
    """The plain data that stands for a binding in a workflow text."""
    match binding:
        case Literal(value):
            return _escape(value)
        case Template(text):
            return {"text": text}
        case Reference() | Expression():
            return str(binding)
        case Interpolation(parts):
            return "".join(map(_write_part, parts, (*parts[1:], "")))
        case Items(items):
            return [write(item) for item in items]
        case Fields(items):
            return {key: write(item) for key, item in items}


def _write_part(part: Part, following: Part) -> str:
    if not isinstance(part, str):
        return str(part)
    text = write_text(part)
    # the brace that dollars at the end stand before is then that of the reference
    return _TRAILING.sub(_doubled, text) if not isinstance(following, str) else text


def _escape(value: Any) -> Any:
    if isinstance(value, str):
        return write_text(value)
    if isinstance(value, list):
        return [_escape(item) for item in value]
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    return value
