"""What a model is asked: a text or turns of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adjoin.errors import InputError
from adjoin.functions.builtin import schemas
from adjoin.types import Message

_ROLES = frozenset({"system", "user", "assistant", "tool"})
_CHOOSE = f"choose from {', '.join(sorted(_ROLES))}"


def conversation(
    prompt: str | Sequence[Message], history: Sequence[Message] | None, system: str | None
) -> str | list[Message]:
    """System message, history, and what is asked now; a text that stands alone stays one.

    Raises:
        InputError: the prompt is empty, a role is unknown, or there are two system messages.
    """
    turns = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
    if not any(message.content.strip() for message in turns):
        raise InputError("empty prompt", where="argument 'prompt'", hint="give the model a text")
    before = [] if history is None else list(history)
    for name, messages in (("prompt", turns), ("history", before)):
        for message in messages:
            if message.role not in _ROLES:
                where = f"argument {name!r}"
                raise InputError(f"unknown role {message.role!r}", where=where, hint=_CHOOSE)
    if isinstance(prompt, str) and not before and system is None:
        return prompt
    if system is None:
        return [*before, *turns]
    if any(message.role == "system" for message in (*before, *turns)):
        raise InputError(
            "there are two system messages",
            where="argument 'system'",
            hint="leave it out, or take the one in the messages out",
        )
    return [Message("system", system), *before, *turns]


def asking_for(prompt: str | Sequence[Message], schema: Mapping[str, Any]) -> str | list[Message]:
    """The prompt with the schema in words, for engines that have no grammars."""
    words = f"\n\nAnswer with JSON only, which fits this JSON Schema:\n{schemas.canonical(schema)}"
    if isinstance(prompt, str):
        return prompt + words
    last = prompt[-1]
    return [*prompt[:-1], Message(last.role, last.content + words)]


def repairing(prompt: str | Sequence[Message], answer: str, reason: str) -> list[Message]:
    """The conversation that goes on after an answer that could not be used."""
    turns = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
    return [
        *turns,
        Message("assistant", answer),
        Message("user", f"That cannot be used: {reason}. Answer again, in the form asked for."),
    ]
