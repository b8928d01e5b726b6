"""The pure part of OpenAI's API: calls in a text, what requests mean, workflows as models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from texts import CITED, LOOPED, REMEMBERS

import adjoin
from adjoin.dag import Graph
from adjoin.errors import InputError
from adjoin.functions import BUILTINS
from adjoin.loading import load_text
from adjoin.runtime.gateway.openai import conversing, meaning
from adjoin.runtime.gateway.openai.calls import Shown, read_calls
from adjoin.runtime.gateway.openai.errors import error_body
from adjoin.runtime.gateway.openai.form import Form
from adjoin.runtime.gateway.openai.requests import (
    NEUTRAL,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Request,
    read,
)
from adjoin.runtime.gateway.openai.transcript import Transcript
from adjoin.settings import Settings
from adjoin.types import Alternative, Generation, Message, Token, Usage

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}},
}
CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
_texts = st.lists(
    st.sampled_from(["a", " ", "\n", "<", "<tool", "_call>", "</tool_call>", "{", "[", "`", CALL]),
    max_size=12,
)


@given(pieces=_texts)
@example(pieces=["{"])
@example(pieces=["well ", CALL, " and", " more"])
@example(pieces=["a <tool", "_cal", "led"])
@example(pieces=["a ", CALL[:5], CALL[5:9], CALL[9:]])
def test_a_text_is_shown_once_and_calls_never(pieces: list[str]) -> None:
    text = "".join(pieces)
    said = read_calls(Generation(text=text), [TOOL])
    shown = Shown(guarded=True)
    parts = [shown.feed(piece) for piece in pieces]
    before = "".join(parts)
    whole = before + shown.rest(said)
    if said.calls:
        assert whole.strip() == said.text
        assert "<tool_call>" not in before
    else:
        assert whole == text


@given(pieces=_texts)
def test_without_tools_everything_is_shown_at_once(pieces: list[str]) -> None:
    shown = Shown(guarded=False)
    assert [shown.feed(piece) for piece in pieces] == pieces


@given(pieces=_texts, tools=st.booleans(), calls=st.booleans())
def test_a_stream_adds_up_to_the_whole_answer(pieces: list[str], tools: bool, calls: bool) -> None:
    if calls:
        pieces = [*pieces, CALL]
    generation = Generation(text="".join(pieces))
    offered = [TOOL] if tools else []
    tokens = [Token(piece, (1,)) for piece in pieces]
    streamed = Transcript(Form("chat", "m", stream=True, tools=offered), "run", 1.0)
    data = streamed.chunks(tokens) + streamed.ending([generation], Usage())
    events = [line[6:] for line in data.split(b"\n\n") if line]
    assert events.pop() == b"[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events]
    whole = Transcript(Form("chat", "m", tools=offered), "run", 1.0)
    (expected,) = json.loads(whole.whole([generation], Usage()))["choices"]
    content = "".join(choice["delta"].get("content") or "" for choice in choices)
    made = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    wanted = expected["message"].get("tool_calls", [])
    assert [call["function"] for call in made] == [call["function"] for call in wanted]
    assert choices[-1]["finish_reason"] == expected["finish_reason"]
    assert content.strip() == (expected["message"]["content"] or "").strip()
    assert choices[0]["delta"]["role"] == "assistant"


def test_two_calls_of_which_one_is_wanted() -> None:
    found = Generation(text=CALL + CALL)
    assert len(read_calls(found, [TOOL]).calls) == 2
    assert len(read_calls(found, [TOOL], one=True).calls) == 1


def test_logprobs_of_a_completion_know_where_their_tokens_are() -> None:
    drawn = [("ab", -0.5), ("", -1.0), ("c", -2.0)]
    tokens = [Token(text, (at,), logprob=logprob) for at, (text, logprob) in enumerate(drawn)]
    whole = Transcript(Form("text", "m", logprobs=True), "run", 1.0)
    body = json.loads(whole.whole([Generation(text="abc")], Usage(), tokens))
    told = body["choices"][0]["logprobs"]
    assert told["tokens"] == ["ab", "", "c"]
    assert told["text_offset"] == [0, 2, 2]
    assert told["token_logprobs"] == [-0.5, -1.0, -2.0]


def test_the_likeliest_tokens_are_told_as_each_api_has_them() -> None:
    top = (Alternative("é", -0.1), Alternative("b", -2.0), Alternative("b", -9999.0))
    tokens = [Token("c", (7,), logprob=-3.0, top=top), Token("", (8,), logprob=-1.0, top=())]
    found = [Generation(text="c")]

    chat_form = Form("chat", "m", logprobs=True, top_logprobs=3)
    chat_body = json.loads(Transcript(chat_form, "run", 1.0).whole(found, Usage(), tokens))
    first, second = chat_body["choices"][0]["logprobs"]["content"]
    assert (first["token"], first["logprob"]) == ("c", -3.0)
    told = [(each["token"], each["logprob"]) for each in first["top_logprobs"]]
    assert told == [("é", -0.1), ("b", -2.0), ("b", -9999.0)]
    assert first["top_logprobs"][0]["bytes"] == [195, 169]
    assert second["top_logprobs"] == []

    text_form = Form("text", "m", logprobs=True, top_logprobs=3)
    text_body = json.loads(Transcript(text_form, "run", 1.0).whole(found, Usage(), tokens))
    told = text_body["choices"][0]["logprobs"]["top_logprobs"]
    assert told == [{"c": -3.0, "é": -0.1, "b": -2.0}, {"": -1.0}]

    parsed = openai.types.chat.ChatCompletion.model_validate(chat_body, strict=True)
    assert parsed.choices[0].logprobs is not None


def test_what_nobody_asked_for_is_not_sent() -> None:
    assert b"top" not in msgspec.msgpack.encode(Token("a", (1,), logprob=-1.0))
    told = Token("a", (1,), logprob=-1.0, top=(Alternative("b", -2.0),))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=Token) == told


def test_thoughts_that_were_not_streamed_come_with_the_rest() -> None:
    streamed = Transcript(Form("chat", "m", stream=True), "run", 1.0)
    data = streamed.ending([Generation(text="yes", reasoning="hm")], Usage())
    first = json.loads(data.split(b"\n\n")[0][6:])["choices"][0]["delta"]
    assert first == {"role": "assistant", "content": "yes", "reasoning_content": "hm"}


# --- requests -------------------------------------------------------------------------------------


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    return read(json.dumps(body).encode(), ChatRequest)


def test_every_neutral_field_is_taken_with_its_neutral_values_only() -> None:
    known = {*Request.__struct_fields__, *ChatRequest.__struct_fields__, "echo", "suffix"}
    assert set(NEUTRAL) <= known
    for name in set(NEUTRAL) & set(ChatRequest.__struct_fields__):
        chat(**{name: None})
        for value in NEUTRAL[name]:
            chat(**{name: value})
        with pytest.raises(InputError) as caught:
            chat(**{name: "something else"})
        assert caught.value.where == name


def test_every_field_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "openai.md").read_text(encoding="utf-8")
    kinds = (ChatRequest, CompletionRequest, EmbeddingRequest)
    fields = {name for kind in kinds for name in kind.__struct_fields__}
    assert [name for name in sorted(fields) if f"`{name}" not in page] == []


def test_one_is_not_true() -> None:
    with pytest.raises(InputError):
        chat(store=0)
    with pytest.raises(InputError):
        chat(best_of=True)


def test_what_vllm_calls_all_is_zero_here() -> None:
    found = meaning.chat_completion(chat(top_k=-1, ignore_eos=True, min_tokens=3), 100)
    sampling = found.sampling
    assert (sampling.top_k, sampling.ignore_eos, sampling.min_tokens) == (0, True, 3)
    assert (sampling.max_tokens, sampling.temperature) == (100, 1.0)


def test_parts_and_calls_become_text() -> None:
    parts = [{"type": "text", "text": "be "}, {"type": "text", "text": "kind"}]
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    asked = chat(
        messages=[
            {"role": "developer", "content": parts},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "two"},
        ]
    )
    assert meaning.turns(asked.messages) == [
        Message("system", "be kind"),
        Message("assistant", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'),
        Message("tool", "two"),
    ]


def test_a_call_that_is_demanded_is_held_to_a_schema() -> None:
    parameters = {
        "type": "object",
        "properties": {"p": {"$ref": "#/$defs/P"}},
        "$defs": {"P": {"type": "string"}},
    }
    tool = {"type": "function", "function": {"name": "g", "parameters": parameters}}
    found = meaning.chat_completion(chat(tools=[TOOL, tool], tool_choice="required"), 100)
    assert found.schema is not None
    assert found.schema["$defs"] == {"P": {"type": "string"}}
    assert [each["properties"]["name"]["const"] for each in found.schema["anyOf"]] == ["f", "g"]
    named: Any = {"type": "function", "function": {"name": "g"}}
    alone = meaning.chat_completion(chat(tools=[TOOL, tool], tool_choice=named), 100)
    assert alone.schema is not None
    assert alone.schema["properties"]["name"] == {"const": "g"}
    assert [each["function"]["name"] for each in alone.tools] == ["g"]
    other = msgspec.json.decode(json.dumps(tool).replace("string", "integer").replace('"g"', '"h"'))
    with pytest.raises(InputError):
        meaning.chat_completion(chat(tools=[tool, other], tool_choice="required"), 100)


def test_errors_name_the_field() -> None:
    for where, param in (("argument 'top_p'", "top_p"), ("messages[0].content",) * 2):
        assert error_body(400, "no", "input", where)["error"]["param"] == param
    elsewhere = error_body(500, "no", "stage", "stage 'answer'", "wait")["error"]
    assert (elsewhere["param"], elsewhere["type"]) == (None, "server_error")
    assert elsewhere["message"] == "stage 'answer': no; wait"


# --- workflows ------------------------------------------------------------------------------------


def graph(body: str) -> Graph:
    return load_text(body, Settings(allowed_modules=("gateway_flows",)))


@adjoin.function
def both(a: str, b: str) -> str:
    return a + b


@adjoin.function
def count(text: str) -> int:
    return len(text)


def test_which_input_is_the_question() -> None:
    @adjoin.workflow
    def one(text: str, k: int = 4):  # type: ignore[no-untyped-def]
        return count(text)

    @adjoin.workflow
    def named(context: str, query: str):  # type: ignore[no-untyped-def]
        return both(context, query)

    @adjoin.workflow
    def turns(messages: list[adjoin.Message]):  # type: ignore[no-untyped-def]
        return BUILTINS["generate"](messages, model="smollm2-135m")

    @adjoin.workflow
    def neither(a: str, b: str):  # type: ignore[no-untyped-def]
        return both(a, b)

    assert conversing.question_of(one.graph).name == "text"
    assert conversing.question_of(named.graph).name == "query"
    with pytest.raises(InputError):
        conversing.question_of(neither.graph)
    said = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert conversing.conversation_inputs(turns.graph, said, {}) == {"messages": said}
    assert conversing.conversation_inputs(one.graph, said, {"k": 1}) == {"text": "c", "k": 1}
    remembers = graph(REMEMBERS)
    assert conversing.conversation_inputs(remembers, said, {})["history"] == said[:2]
    with pytest.raises(InputError):
        conversing.conversation_inputs(one.graph, said, {"text": "d"})
    with pytest.raises(InputError):
        conversing.conversation_inputs(one.graph, said[:2], {})


def test_whose_tokens_are_the_answer() -> None:
    generate = BUILTINS["generate"]

    @adjoin.workflow
    def plain(question: str):  # type: ignore[no-untyped-def]
        draft = generate(question, model="smollm2-135m")
        final = generate(draft, model="smollm2-135m")
        return {"answer": final, "draft": draft}

    @adjoin.workflow
    def counted(question: str):  # type: ignore[no-untyped-def]
        return count(generate(question, model="smollm2-135m"))

    @adjoin.workflow
    def listed(question: str):  # type: ignore[no-untyped-def]
        return generate(question, model="smollm2-135m", n=2)

    assert conversing.streamed_stage(plain.graph) == "final"
    assert conversing.streamed_stage(counted.graph) == ""
    assert conversing.streamed_stage(listed.graph) == ""
    assert conversing.streamed_stage(graph(CITED)) == "said"
    assert conversing.streamed_stage(graph(LOOPED)) == ""


def test_an_answer_is_text_or_json() -> None:
    assert conversing.as_text("a") == "a"
    assert conversing.as_text(None) == ""
    assert conversing.as_text({"a": [1]}) == '{"a":[1]}'
