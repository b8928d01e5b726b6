"""Calls of tools in an answer: what may be shown before it is whole, and the calls in the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adjoin.errors import FunctionError
from adjoin.functions.builtin.tools import read_reply
from adjoin.types import Generation

_TAG = "<tool_call>"
#: An answer that begins so may be nothing but calls.
_BARE = ("{", "[", "```")


class Call(NamedTuple):
    name: str
    arguments: str


class Said(NamedTuple):
    """An answer: the text that is no call, and the calls."""

    text: str
    calls: tuple[Call, ...] = ()


def read_calls(
    generation: Generation, tools: Sequence[Mapping[str, Any]], *, one: bool = False
) -> Said:
    """Text and calls of an answer. A call that cannot be used (there is no such tool, or its
    arguments do not fit) is text: the caller sees what the model said. ``one`` keeps the first."""
    if not tools:
        return Said(generation.text)
    try:
        reply = read_reply(generation, tools)
    except FunctionError:
        return Said(generation.text)
    calls = tuple(
        Call(each.name, json.dumps(each.arguments, ensure_ascii=False)) for each in reply.tool_calls
    )
    return Said(reply.content, calls[:1] if one else calls)


class Shown:
    """The part of a growing answer that is certainly no call."""

    def __init__(self, *, guarded: bool) -> None:
        self._guarded = guarded
        self._text = ""
        self._sent = 0
        self._closed = False

    def feed(self, piece: str) -> str:
        """What may be shown now."""
        self._text += piece
        if not self._guarded:
            return self._give(len(self._text))
        if self._closed or self._may_be_bare():
            return ""
        tag = self._text.find(_TAG, self._sent)
        if tag >= 0:
            self._closed = True
            return self._give(tag)
        return self._give(len(self._text) - self._held())

    def rest(self, said: Said) -> str:
        """What of the whole answer has not been shown."""
        if not said.calls:
            return said.text[self._sent :]
        shown = self._text[: self._sent].lstrip()
        return said.text[len(shown) :] if said.text.startswith(shown) else ""

    def _give(self, end: int) -> str:
        piece, self._sent = self._text[self._sent : end], max(self._sent, end)
        return piece

    def _may_be_bare(self) -> bool:
        begun = self._text.lstrip()
        return any(begun.startswith(mark) or mark.startswith(begun) for mark in _BARE)

    def _held(self) -> int:
        """Length of the longest tail that a tag starts with."""
        sizes = range(min(len(_TAG) - 1, len(self._text) - self._sent), 0, -1)
        return next((size for size in sizes if self._text.endswith(_TAG[:size])), 0)
