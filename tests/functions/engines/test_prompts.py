"""Rendering with stand-ins for tokenizers: one word is one id."""

from __future__ import annotations

from typing import Any

import pytest

from adjoin.errors import InputError
from adjoin.functions.engines.base import GenerateRequest
from adjoin.functions.engines.prompts import encode
from adjoin.types import Message, Sampling

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


class Tokenizer:
    def __init__(self, template: str | None, ending: str = "") -> None:
        self.chat_template = template
        self.ending = ending
        self.rendered = ""
        self.tools: Any = None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        self.rendered = text
        return [1] * len(text.split())

    def apply_chat_template(
        self, turns: list[dict[str, str]], tools: Any, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert add_generation_prompt
        assert not tokenize
        self.tools = tools
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns) + self.ending


def request(prompt: str | list[Message] = "hello there", **fields: Any) -> GenerateRequest:
    return GenerateRequest(id="a", prompt=prompt, sampling=Sampling(), **fields)


def test_a_text_is_a_user_turn_unless_raw_or_without_template() -> None:
    tokenizer = Tokenizer("turns")
    encode(tokenizer, request())
    assert tokenizer.rendered == "user: hello there"
    for other, raw in ((Tokenizer(None), False), (Tokenizer("turns"), True)):
        encode(other, request(raw=raw))
        assert other.rendered == "hello there"


def test_a_template_that_opens_the_thoughts_is_noticed_except_under_a_grammar() -> None:
    tokenizer = Tokenizer("turns", ending="\n<think>\n")
    assert encode(tokenizer, request()).opened
    assert not encode(tokenizer, request(schema="{}")).opened
    assert not encode(Tokenizer("turns"), request()).opened
    assert encode(Tokenizer(None), request("solve it <think>", raw=True)).opened


def test_tools_go_to_a_template_that_takes_them() -> None:
    tokenizer = Tokenizer("{% if tools %}…")
    encode(tokenizer, request(tools=[TOOL]))
    assert tokenizer.tools == [TOOL]
    assert "add" not in tokenizer.rendered


@pytest.mark.parametrize("system", [True, False])
def test_other_templates_get_them_in_words(system: bool) -> None:
    turns = [Message("system", "Be kind.")] if system else []
    tokenizer = Tokenizer("turns")
    encode(tokenizer, request([*turns, Message("user", "2 + 2?")], tools=[TOOL]))
    assert tokenizer.tools is None
    first, *_, last = tokenizer.rendered.split("\n")
    assert first.startswith("system: Be kind." if system else "system: You may call")
    assert '"name": "add"' in tokenizer.rendered
    assert tokenizer.rendered.count("system:") == 1
    assert last == "user: 2 + 2?"


def test_messages_without_a_template_are_refused() -> None:
    with pytest.raises(InputError, match="no chat template"):
        encode(Tokenizer(None), request([Message("user", "hi")]))
