"""How one stage computes: built-in functions, ingestion, engines, models."""

from __future__ import annotations

from adjoin.functions.builtin import (
    BUILTINS,
    chunk,
    embed,
    generate,
    parse,
    prompt,
    rerank,
    retrieve,
    select,
    vote,
)

__all__ = [
    "BUILTINS",
    "chunk",
    "embed",
    "generate",
    "parse",
    "prompt",
    "rerank",
    "retrieve",
    "select",
    "vote",
]
