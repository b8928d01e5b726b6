"""How an answer is to be written, and what of a run it is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adjoin.types import Generation


@dataclass(frozen=True)
class Form:
    """What the caller asked for.

    Attributes:
        model: the id that the caller used.
        tools: those that the model was shown; then the answer may hold calls.
        one_call: of several calls only the first is wanted.
        choices: how many answers there are.
        top_logprobs: how many of the likeliest tokens are told at each place, with ``logprobs``.
    """

    kind: Literal["chat", "text"]
    model: str
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    tools: Sequence[Mapping[str, Any]] = ()
    one_call: bool = False
    choices: int = 1
    top_logprobs: int = 0


@dataclass(frozen=True)
class Source:
    """Where the answer is in a run.

    Attributes:
        stage: the stage whose tokens are the answer; empty when none can be shown before the end.
        answers: the whole answers, by choice, from the run's outputs.
        extension: what else is told of a run, from its id and its outputs; None for nothing.
        single: the run is nothing but this answer, so that errors need not name a stage.
    """

    stage: str
    answers: Callable[[Mapping[str, Any]], list[Generation]]
    extension: Callable[[str, Mapping[str, Any]], dict[str, Any]] | None = None
    single: bool = False
