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
        self._given: list[str] = []
        self._held = ""
        self._begun = False
        #: Nothing more is shown before the answer is whole.
        self._closed = False

    @property
    def text(self) -> str:
        """What has been shown."""
        return "".join(self._given)

    def feed(self, piece: str) -> str:
        """What may be shown now."""
        self._held += piece
        if not self._guarded:
            return self._give(len(self._held))
        if self._closed or not self._begins():
            return ""
        tag = self._held.find(_TAG)
        if tag >= 0:
            self._closed = True
            return self._give(tag)
        return self._give(len(self._held) - self._overlap())

    def rest(self, said: Said) -> str:
        """What of the whole answer has not been shown."""
        shown = self.text
        if not said.calls:
            return said.text[len(shown) :]
        shown = shown.lstrip()
        return said.text[len(shown) :] if said.text.startswith(shown) else ""

    def _give(self, end: int) -> str:
        piece, self._held = self._held[:end], self._held[end:]
        self._given.append(piece)
        return piece

    def _begins(self) -> bool:
        """Whether it is known that the answer is not a bare call."""
        if not self._begun:
            begun = self._held.lstrip()
            self._closed = begun.startswith(_BARE)
            self._begun = not any(mark.startswith(begun) for mark in _BARE) and not self._closed
        return self._begun

    def _overlap(self) -> int:
        """Length of the longest tail that a tag starts with."""
        sizes = range(min(len(_TAG) - 1, len(self._held)), 0, -1)
        return next((size for size in sizes if self._held.endswith(_TAG[:size])), 0)
