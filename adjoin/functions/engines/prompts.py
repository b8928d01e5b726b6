"""From a prompt to token ids, the same for every engine that has a Hugging Face tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adjoin.errors import InputError
from adjoin.functions.engines.base import GenerateRequest, empty_prompt
from adjoin.functions.engines.reasoning import opens_reasoning
from adjoin.types import Message


class Prompt(NamedTuple):
    """Token ids, and whether the answer begins in the middle of the model's thoughts."""

    ids: list[int]
    opened: bool


def encode(tokenizer: Any, request: GenerateRequest) -> Prompt:
    """The request's prompt as the model reads it.

    A string becomes one user turn of the model's chat template, unless ``raw`` or it has none.

    Raises:
        InputError: the prompt is empty, or the chat template refuses it.
    """
    prompt = request.prompt
    if isinstance(prompt, str):
        if not prompt.strip():
            raise empty_prompt()
        if request.raw or not tokenizer.chat_template:
            return Prompt(list(tokenizer.encode(prompt)), opens_reasoning(prompt))
        prompt = [Message(role="user", content=prompt)]
    if not any(message.content.strip() for message in prompt):
        raise empty_prompt()
    text = _render(tokenizer, prompt, request.tools)
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    # Under a grammar there is no room for thoughts: the answer comes at once.
    return Prompt(ids, opens_reasoning(text) and not request.schema)


def _render(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
    template = tokenizer.chat_template
    if not template:
        raise InputError(
            "the model has no chat template for a list of messages",
            hint="give one string, or use a model tuned for conversation",
        )
    if tools and not _takes_tools(template):
        messages, tools = instructed(messages, tools), ()
    turns = [{"role": message.role, "content": message.content} for message in messages]
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            turns, tools=list(tools) or None, tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise InputError(f"the model's chat template refuses the messages: {error}") from error
    return str(text)


def _takes_tools(template: str | Mapping[str, str]) -> bool:
    """Whether a chat template, or one of its named variants, does something with tools."""
    texts = [template] if isinstance(template, str) else template.values()
    return any("tools" in text for text in texts)


def instructed(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages with the tools explained in words, in the form that Hermes models use."""
    shown = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    words = (
        f"You may call these functions:\n{shown}\n"
        "To call one, answer with nothing but\n"
        '<tool_call>{"name": "…", "arguments": {…}}</tool_call>'
    )
    if messages[0].role == "system":
        return [Message("system", f"{messages[0].content}\n\n{words}"), *messages[1:]]
    return [Message("system", words), *messages]
