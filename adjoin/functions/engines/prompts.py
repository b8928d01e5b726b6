"""From a prompt to token ids, the same for every engine that has a Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adjoin.errors import InputError
from adjoin.functions.engines.base import empty_prompt
from adjoin.types import Message


def encode(tokenizer: Any, prompt: str | Sequence[Message], *, raw: bool) -> list[int]:
    """Token ids of a prompt.

    A string becomes one user turn of the model's chat template, unless ``raw`` or it has none.

    Raises:
        InputError: the prompt is empty, or the chat template refuses it.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise empty_prompt()
        if raw or not tokenizer.chat_template:
            return list(tokenizer.encode(prompt))
        prompt = [Message(role="user", content=prompt)]
    if not any(message.content.strip() for message in prompt):
        raise empty_prompt()
    return list(tokenizer.encode(_render(tokenizer, prompt), add_special_tokens=False))


def _render(tokenizer: Any, messages: Sequence[Message]) -> str:
    if not tokenizer.chat_template:
        raise InputError(
            "the model has no chat template for a list of messages",
            hint="give one string, or use a model tuned for conversation",
        )
    turns = [{"role": message.role, "content": message.content} for message in messages]
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise InputError(f"the model's chat template refuses the messages: {error}") from error
    return str(text)
