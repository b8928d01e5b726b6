"""How one stage computes: built-in functions, ingestion, engines, models."""

from __future__ import annotations

from adjoin.functions.builtin import BUILTINS, chunk, embed, generate, prompt, retrieve

__all__ = ["BUILTINS", "chunk", "embed", "generate", "prompt", "retrieve"]
