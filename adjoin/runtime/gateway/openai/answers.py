"""Answers in OpenAI's shape. What a structure leaves unset is not written."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from adjoin import types as t


class CachedTokens(msgspec.Struct, frozen=True):
    cached_tokens: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int | UnsetType = UNSET
    total_tokens: int
    prompt_tokens_details: CachedTokens | UnsetType = UNSET


class CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """``index`` is set in chunks only."""

    index: int | UnsetType = UNSET
    id: str
    type: str = "function"
    function: CalledFunction


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message, or what a chunk adds to one."""

    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    adjoin: Any = UNSET


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TokenLogprob] | UnsetType = UNSET

    @classmethod
    def of(cls, token: t.Token) -> TokenLogprob:
        return cls(
            token=token.text,
            logprob=token.logprob or 0.0,
            bytes=list(token.text.encode()),
            top_logprobs=[
                cls(token=each.text, logprob=each.logprob, bytes=list(each.text.encode()))
                for each in token.top or ()
            ],
        )


class ChatLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    content: list[TokenLogprob]


class TextLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """``text_offset`` counts characters of the answer; ``top_logprobs`` has the drawn token too."""

    tokens: list[str]
    token_logprobs: list[float | None]
    text_offset: list[int]
    top_logprobs: list[dict[str, float]] | None = None


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """``delta`` is set in chunks, ``message`` in whole answers."""

    index: int
    message: Message | UnsetType = UNSET
    delta: Message | UnsetType = UNSET
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class TextChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    text: str
    reasoning_content: str | UnsetType = UNSET
    logprobs: TextLogprobs | None = None
    finish_reason: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer or a chunk of one. ``usage`` is null in the chunks before the one that has it."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice] | list[TextChoice]
    usage: Usage | UnsetType | None = UNSET
    adjoin: Any = UNSET


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "embedding"
    index: int
    embedding: list[float] | str


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """``owned_by`` says what it is: ``model`` or ``workflow``; ``created`` is 0 for a model."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "model"


class Models(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "list"
    data: list[Model]


def usage_of(usage: t.Usage) -> Usage:
    """Of a generation. Tokens that a workflow embeds are prompt tokens too."""
    prompt = usage.prompt + usage.embedded
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=usage.generated,
        total_tokens=prompt + usage.generated,
        prompt_tokens_details=CachedTokens(usage.cached),
    )


def embeddings(vectors: Any, model: str, used: t.Usage, *, as_base64: bool) -> Embeddings:
    """Of unit vectors ``[n, d]``; base64 is that of little-endian float32."""
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    data = [
        Embedding(
            index=at,
            embedding=base64.b64encode(row.tobytes()).decode() if as_base64 else row.tolist(),
        )
        for at, row in enumerate(rows)
    ]
    usage = Usage(prompt_tokens=used.embedded, total_tokens=used.embedded)
    return Embeddings(data=data, model=model, usage=usage)
