from __future__ import annotations

from typing import Any

import pytest

from adjoin.errors import DefinitionError, FunctionError
from adjoin.functions.builtin.tools import check, read_reply
from adjoin.types import Generation, Reply, ToolCall

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
CALL = ToolCall("add", {"a": 1, "b": 2})


def read(text: str, reasoning: str = "") -> Reply:
    return read_reply(Generation(text=text, reasoning=reasoning), [ADD, NOW])


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>',
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n',
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}</tool_call>',
        '{"name": "add", "arguments": {"a": 1, "b": 2}}',
        '{"name": "add", "parameters": {"a": 1, "b": 2}}',
        '[{"name": "add", "arguments": {"a": 1, "b": 2}}]',
        '```json\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n```',
    ],
)
def test_a_call_in_each_form(text: str) -> None:
    assert read(text) == Reply("", "", (CALL,))


def test_text_beside_calls_and_thoughts_stay() -> None:
    reply = read(
        'Let me see.<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
        '<tool_call>{"name": "now"}</tool_call>',
        "hm",
    )
    assert reply == Reply("Let me see.", "hm", (CALL, ToolCall("now", {})))


@pytest.mark.parametrize("text", ["3", "It is three.", '{"name": "Ada"}', '{"a": 1}', "[]", ""])
def test_an_answer_that_is_no_call_is_text(text: str) -> None:
    assert read(text) == Reply(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<tool_call>add 1 and 2</tool_call>", "not JSON"),
        ("<tool_call>[1]</tool_call>", "not an object"),
        ('<tool_call>{"name": "sub"}</tool_call>', "no tool 'sub', only add, now"),
        ('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>', "'b' is a required"),
        ('{"name": "add", "arguments": {"a": "x", "b": 2}}', "do not fit"),
        ('<tool_call>{"name": "add", "arguments": [1, 2]}</tool_call>', "not an object"),
        ('<tool_call>{"name": "add", "arguments": "a=1"}</tool_call>', "not JSON"),
    ],
)
def test_a_call_that_cannot_be_made(text: str, message: str) -> None:
    with pytest.raises(FunctionError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([], "0 tools"),
        ([{"name": "add"}], "tool 0 is not a function"),
        ([{"type": "function", "function": {"name": "a b"}}], "tool 0"),
        ([ADD, ADD], "two tools are called 'add'"),
        (
            [{"type": "function", "function": {"name": "f", "parameters": {"type": 1}}}],
            "'f'.*wrong",
        ),
        ([ADD, "now"], "tool 1"),
        ([NOW] * 129, "129 tools"),
    ],
)
def test_what_is_no_tool(tools: list[Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        check(tools)
