"""Thoughts before the answer, told apart from it while the text comes.

Models in the style of DeepSeek-R1 write ``<think>…</think>`` first; with some chat templates the
prompt itself ends with the opening tag. Only thoughts at the beginning count: a tag further on is
part of the answer, which may well be about tags.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from msgspec import UNSET, UnsetType

from adjoin.types import Alternative, Token

OPEN = "<think>"
CLOSE = "</think>"


class Part(NamedTuple):
    text: str
    reasoning: bool


class _At(enum.Enum):
    START = enum.auto()
    REASONING = enum.auto()
    BETWEEN = enum.auto()
    ANSWER = enum.auto()


class ReasoningSplit:
    """Splits a text that comes in pieces; however it is cut, the parts add up to the same.

    The tags, and the space around them, belong to neither part. What could yet be a tag stays back
    until more text decides, or :meth:`flush`.

    Args:
        opened: the prompt ends with the opening tag.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._opened = opened
        self._at = _At.START
        self._held = ""
        self._said: dict[bool, list[str]] = {False: [], True: []}

    @property
    def answer(self) -> str:
        """What was given out of the answer so far."""
        return "".join(self._said[False])

    @property
    def reasoning(self) -> str:
        return "".join(self._said[True])

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to the thoughts, as far as is known."""
        return self._at is _At.REASONING or (self._at is _At.START and self._opened)

    def feed(self, piece: str) -> list[Part]:
        self._held += piece
        parts: list[Part] = []
        if self._at is _At.START:
            self._start()
        if self._at is _At.REASONING:
            parts += self._reason()
        if self._at is _At.BETWEEN:
            self._held = self._held.lstrip()
            if self._held:
                self._at = _At.ANSWER
        if self._at is _At.ANSWER:
            parts += self._give(len(self._held), reasoning=False)
        return parts

    def flush(self) -> list[Part]:
        """What was held back: no more text comes."""
        if self._at is _At.BETWEEN:
            return []
        return self._give(len(self._held), reasoning=self.thinking)

    def tokens(
        self,
        piece: str,
        ids: tuple[int, ...],
        choice: int,
        logprob: float | None,
        *,
        last: bool,
        top: tuple[Alternative, ...] | UnsetType = UNSET,
    ) -> tuple[Token, ...]:
        """The tokens that say ``piece``; the first of them has the ids and the probabilities."""
        parts = self.feed(piece)
        if last:
            parts += self.flush()
        first, *more = parts or [Part("", self.thinking)]
        return (
            Token(first.text, ids, choice, logprob, first.reasoning, top),
            *(Token(part.text, (), choice, None, part.reasoning) for part in more),
        )

    def _start(self) -> None:
        begun = self._held.lstrip()
        if begun.startswith(OPEN):
            self._held = begun[len(OPEN) :]
            self._at = _At.REASONING
        elif not OPEN.startswith(begun):
            self._at = _At.REASONING if self._opened else _At.ANSWER

    def _reason(self) -> list[Part]:
        end = self._held.find(CLOSE)
        if end < 0:
            return self._give(len(self._held) - _overlap(self._held), reasoning=True)
        parts = self._give(end, reasoning=True)
        self._held = self._held[len(CLOSE) :]
        self._at = _At.BETWEEN
        return parts

    def _give(self, end: int, *, reasoning: bool) -> list[Part]:
        text, self._held = self._held[:end], self._held[end:]
        if not text:
            return []
        self._said[reasoning].append(text)
        return [Part(text, reasoning)]


def opens_reasoning(prompt: str) -> bool:
    """Whether a rendered prompt leaves the model in the middle of its thoughts."""
    return prompt.rstrip().endswith(OPEN)


def _overlap(text: str) -> int:
    """Length of the longest tail that the closing tag starts with."""
    sizes = range(min(len(CLOSE) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(CLOSE[:size])), 0)
