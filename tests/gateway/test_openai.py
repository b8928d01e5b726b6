"""OpenAI's API as its official client sees it; the fake engine answers with the prompt's words."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from texts import CITED, ENDLESS, LOOPED, REMEMBERS, SCRIPTED, text

API = "/api/v1/workflows"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}

WRONG_FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 1}}}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}


@pytest.fixture
def ai(served: Any) -> Iterator[openai.OpenAI]:
    key = served.key()
    with openai.OpenAI(
        base_url=f"{served.url}/v1", api_key=key, max_retries=0, timeout=30
    ) as found:
        yield found


def said(content: str, role: str = "user") -> Any:
    return [{"role": role, "content": content}]


def deploy(client: httpx2.Client, body: str, name: str) -> None:
    answer = client.put(f"{API}/{name}", content=body)
    assert answer.status_code in (200, 201), answer.text


# --- models ---------------------------------------------------------------------------------------


def test_models_are_those_of_the_server_and_the_tenants_workflows(
    ai: openai.OpenAI, client: httpx2.Client, served: Any
) -> None:
    deploy(client, text("listed"), "listed")
    owners = {model.id: model.owned_by for model in ai.models.list()}
    assert owners["listed"] == "workflow"
    assert owners["fake:"] == owners["smollm2-135m"] == owners["minilm"] == "model"
    assert ai.models.retrieve("listed").created > 0
    assert ai.models.retrieve("fake:").id == "fake:"
    other = openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key("other"), max_retries=0)
    with other:
        assert "listed" not in {model.id for model in other.models.list()}
        with pytest.raises(openai.NotFoundError):
            other.chat.completions.create(model="listed", messages=said("hello"))


@pytest.mark.parametrize("model", ["/etc", "some/model", "nothing"])
def test_a_model_that_is_not_allowed_is_not_there(ai: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ai.chat.completions.create(model=model, messages=said("hello"))
    body = caught.value.body
    assert isinstance(body, dict)
    assert (body["code"], body["param"]) == ("model_not_found", "model")
    assert model in body["message"]
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve(model)


def test_a_model_of_another_kind(ai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        ai.chat.completions.create(model="minilm", messages=said("hello"))
    with pytest.raises(openai.BadRequestError):
        ai.embeddings.create(model="smollm2-135m", input="hello")


# --- chats ----------------------------------------------------------------------------------------


def test_a_chat(ai: openai.OpenAI) -> None:
    found = ai.chat.completions.create(
        model="fake:",
        messages=[*said("be brief", "developer"), *said("one two three")],
        temperature=0,
        user="somebody",
        metadata={"a": "b"},
    )
    (choice,) = found.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "one two three ")
    assert choice.finish_reason == "stop"
    assert found.id.startswith("chatcmpl-")
    assert (found.object, found.model) == ("chat.completion", "fake:")
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (3, 3)
    assert found.usage.total_tokens == 6
    assert found.usage.prompt_tokens_details is not None
    assert found.usage.prompt_tokens_details.cached_tokens == 0


def test_a_stream_is_the_same_answer_in_pieces(ai: openai.OpenAI) -> None:
    chunks = list(
        ai.chat.completions.create(
            model="fake:",
            messages=said("one two three"),
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert [delta.content for delta in deltas] == ["one ", "two ", "three ", None]
    assert [delta.role for delta in deltas] == ["assistant", None, None, None]
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons == [None, None, None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_ends_with_done_and_says_which_run_it_is(client: httpx2.Client) -> None:
    body = {"model": "fake:", "messages": said("hello"), "stream": True}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")
    assert '"usage"' not in answer.text
    run = client.get(f"/api/v1/runs/{answer.headers['x-run-id']}").json()
    assert (run["workflow"], run["state"]) == ("fake:", "succeeded")
    usage = client.get("/api/v1/usage").json()["usage"]
    assert "fake:" in {line["workflow"] for line in usage}


@pytest.mark.parametrize("stream", [False, True])
def test_length_stop_and_samples(ai: openai.OpenAI, stream: bool) -> None:
    def ask(**options: Any) -> dict[int, tuple[str, str]]:
        create: Any = ai.chat.completions.create
        answer = create(model="fake:", messages=said("one two three"), stream=stream, **options)
        if not stream:
            return {c.index: (c.message.content, c.finish_reason) for c in answer.choices}
        texts: dict[int, str] = {}
        reasons: dict[int, str] = {}
        for choice in (choice for chunk in answer for choice in chunk.choices):
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
        return {index: (texts[index], reasons[index]) for index in sorted(texts)}

    assert ask(temperature=0, max_tokens=2) == {0: ("one two ", "length")}
    assert ask(temperature=0, max_completion_tokens=2) == {0: ("one two ", "length")}
    assert ask(temperature=0, stop="three") == {0: ("one two ", "stop")}
    three = ask(n=3, seed=7)
    assert three == ask(n=3, seed=7)
    assert {" ".join(sorted(text.split())) for text, _ in three.values()} == {"one three two"}
    assert list(three) == [0, 1, 2]


def test_thoughts_are_told_apart(ai: openai.OpenAI) -> None:
    create: Any = ai.chat.completions.create
    question = said("<think> hm </think> yes")
    whole = create(model="fake:", messages=question, temperature=0)
    message = whole.choices[0].message
    assert (message.reasoning_content.strip(), message.content.strip()) == ("hm", "yes")
    deltas = [
        chunk.choices[0].delta
        for chunk in create(model="fake:", messages=question, temperature=0, stream=True)
    ]
    thoughts = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thoughts == message.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == message.content


def test_parts_and_calls_of_a_conversation_become_text(ai: openai.OpenAI) -> None:
    turns: Any = [
        *said("what is the weather"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Bonn"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}],
        },
    ]
    found = ai.chat.completions.create(model="fake:", messages=turns, temperature=0)
    assert found.choices[0].message.content == "one two "


# --- tools and forms ------------------------------------------------------------------------------

CALL = '<tool_call> {"name": "weather", "arguments": {"city": "Bonn"}} </tool_call>'


def test_a_call_of_a_tool(ai: openai.OpenAI) -> None:
    create: Any = ai.chat.completions.create
    asked = {"model": "fake:", "temperature": 0, "tools": [WEATHER]}
    for content in (f"well {CALL}", CALL, '{"name": "weather", "arguments": {"city": "Bonn"}}'):
        (choice,) = create(messages=said(content), **asked).choices
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        assert (call.type, call.function.name) == ("function", "weather")
        assert call.function.arguments == '{"city": "Bonn"}'
        assert choice.message.content == ("well" if content.startswith("well") else None)

        chunks = [
            chunk.choices[0] for chunk in create(messages=said(content), stream=True, **asked)
        ]
        text = "".join(chunk.delta.content or "" for chunk in chunks)
        assert text.strip() == (choice.message.content or "")
        (delta,) = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
        assert (delta.index, delta.function.name) == (0, "weather")
        assert delta.function.arguments == '{"city": "Bonn"}'
        assert chunks[-1].finish_reason == "tool_calls"


def test_no_call_and_none_wanted(ai: openai.OpenAI) -> None:
    create: Any = ai.chat.completions.create
    asked = {"model": "fake:", "temperature": 0, "tools": [WEATHER]}
    for options in ({"messages": said("no call")}, {"messages": said(CALL), "tool_choice": "none"}):
        (choice,) = create(**asked, **options).choices
        assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
        assert choice.message.content.split() == options["messages"][0]["content"].split()
        pieces = [chunk.choices[0] for chunk in create(stream=True, **asked, **options)]
        assert "".join(piece.delta.content or "" for piece in pieces) == choice.message.content


def test_a_call_that_does_not_fit_is_text(ai: openai.OpenAI) -> None:
    wrong = '<tool_call> {"name": "weather", "arguments": {"city": 1}} </tool_call>'
    create: Any = ai.chat.completions.create
    (choice,) = create(model="fake:", temperature=0, messages=said(wrong), tools=[WEATHER]).choices
    assert (choice.message.content.strip(), choice.finish_reason) == (wrong, "stop")


def test_a_call_that_is_demanded(ai: openai.OpenAI, client: httpx2.Client) -> None:
    """The fake engine has no grammars and gives the schema back, which is an object but no call."""
    create: Any = ai.chat.completions.create
    asked = {"model": "fake:", "temperature": 0, "messages": said("x"), "tools": [WEATHER]}
    named = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", named):
        with pytest.raises(openai.InternalServerError) as caught:
            create(tool_choice=choice, **asked)
        assert "schema" in str(caught.value) or "JSON" in str(caught.value)
    with pytest.raises(openai.BadRequestError):
        create(tool_choice={"type": "function", "function": {"name": "other"}}, **asked)
    asked.pop("tools")
    with pytest.raises(openai.BadRequestError):
        create(tool_choice="required", **asked)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_in_json(ai: openai.OpenAI, stream: bool) -> None:
    """The fake engine says the question again, with the schema in words behind it."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    forms = (
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    for form in forms:
        create: Any = ai.chat.completions.create
        answer = create(
            model="fake:",
            messages=said('{"a": 1}'),
            temperature=0,
            response_format=form,
            stream=stream,
        )
        if stream:
            found = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
        else:
            found = answer.choices[0].message.content
        assert found == '{"a": 1}'


# --- completions and embeddings -------------------------------------------------------------------


def test_completions(ai: openai.OpenAI) -> None:
    found = ai.completions.create(model="fake:", prompt="one two three", temperature=0)
    assert (found.object, found.choices[0].text) == ("text_completion", "one two three ")
    several = ai.completions.create(
        model="fake:", prompt=["one two", "three four"], n=2, seed=1, max_tokens=1
    )
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    words = [choice.text.strip() for choice in several.choices]
    assert set(words[:2]) <= {"one", "two"}
    assert set(words[2:]) <= {"three", "four"}
    assert {choice.finish_reason for choice in several.choices} == {"length"}
    stream = ai.completions.create(
        model="fake:", prompt=["one two", "three four"], temperature=0, stream=True
    )
    texts = {0: "", 1: ""}
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == {0: "one two ", 1: "three four "}
    long = ai.completions.create(model="fake:", prompt="a " * 40, temperature=0)
    assert long.usage is not None
    assert long.usage.completion_tokens == 16


def test_embeddings_in_both_formats(ai: openai.OpenAI) -> None:
    texts = ["cats purr", "dogs bark", "cats purr"]
    floats = ai.embeddings.create(model="fake:", input=texts, encoding_format="float")
    assert [each.index for each in floats.data] == [0, 1, 2]
    vectors = np.array([each.embedding for each in floats.data], dtype=np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    # The client asks for base64 when it is not told, and decodes it.
    packed = ai.embeddings.create(model="fake:", input=texts)
    np.testing.assert_array_equal(np.array([e.embedding for e in packed.data], np.float32), vectors)
    raw: Any = ai.embeddings.create(model="fake:", input=texts, encoding_format="base64")
    assert isinstance(raw.data[0].embedding, str)
    assert floats.usage.prompt_tokens == floats.usage.total_tokens == 6
    single = ai.embeddings.create(model="fake:", input="cats purr", encoding_format="float")
    np.testing.assert_allclose(single.data[0].embedding, vectors[0])


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 65}, "n"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 100_000_000}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"seed": -1}, "seed"),
        ({"extra_body": {"top_k": -2}}, "top_k"),
        ({"extra_body": {"min_tokens": 9, "max_tokens": 2}}, "min_tokens"),
        ({"logit_bias": {"one": 2}}, "logit_bias"),
        ({"logit_bias": {"-1": 2}}, "logit_bias"),
        ({"logit_bias": {"1": 2, "01": 2}}, "logit_bias"),
        ({"logit_bias": {"1": 100.5}}, "logit_bias"),
        ({"logit_bias": {str(id): 1 for id in range(301)}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logprobs": True, "tools": [WEATHER]}, "logprobs"),
        ({"extra_body": {"min_p": 0.1}}, "min_p"),
        ({"extra_body": {"nothing_known": 1}}, "nothing_known"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": WRONG_FORM}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_object"}, "tools": [WEATHER]}, "response_format"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
        ({"extra_body": {"adjoin": {"inputs": {}}}}, "adjoin"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_a_chat_may_not_ask(ai: openai.OpenAI, options: Any, param: str) -> None:
    create: Any = ai.chat.completions.create
    with pytest.raises(openai.BadRequestError) as caught:
        create(**{"model": "fake:", "messages": said("hello"), **options})
    body = caught.value.body
    assert isinstance(body, dict)
    assert (body["type"], body["param"]) == ("invalid_request_error", param), body["message"]
    assert body["code"] == "input"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", {"prompt": [1, 2, 3]}),
        ("completions", {"prompt": [[1, 2, 3]]}),
        ("completions", {"prompt": []}),
        ("completions", {"prompt": "x", "echo": True}),
        ("completions", {"prompt": "x", "logprobs": 21}),
        ("completions", {"prompt": "x", "logprobs": -1}),
        ("completions", {"prompt": ["x"] * 64, "n": 3}),
        ("embeddings", {"input": [1, 2, 3]}),
        ("embeddings", {"input": [[1, 2, 3]]}),
        ("embeddings", {"input": []}),
        ("embeddings", {"input": "x", "dimensions": 8}),
        ("embeddings", {"input": ""}),
        ("embeddings", {"input": ["x"] * 2049}),
        ("chat/completions", {}),
        ("chat/completions", {"messages": "hello"}),
    ],
)
def test_what_else_is_refused(client: httpx2.Client, path: str, body: Any) -> None:
    answer = client.post(f"/v1/{path}", json={"model": "fake:", **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("options", "name"),
    [({"logit_bias": {"1": 2}}, "logit_bias"), ({"logprobs": True, "top_logprobs": 2}, "top_log")],
)
def test_an_engine_that_cannot_says_so(ai: openai.OpenAI, options: Any, name: str) -> None:
    with pytest.raises(openai.BadRequestError, match=f"engine 'fake' has no {name}"):
        ai.chat.completions.create(model="fake:", messages=said("hello"), **options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"logprobs": True, "top_logprobs": 1}, "logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
    ],
)
def test_a_workflow_takes_no_logits(
    ai: openai.OpenAI, client: httpx2.Client, options: Any, name: str
) -> None:
    deploy(client, text("plainly"), "plainly")
    with pytest.raises(openai.BadRequestError, match=f"a workflow takes no {name}"):
        ai.chat.completions.create(model="plainly", messages=said("hello"), **options)


def test_errors_have_openais_shape_before_any_route(served: Any, client: httpx2.Client) -> None:
    nobody = openai.OpenAI(base_url=f"{served.url}/v1", api_key="adj_wrong", max_retries=0)
    with nobody, pytest.raises(openai.AuthenticationError) as caught:
        nobody.models.list()
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "authentication_error"
    key = served.key("default", "deploy")
    lacking = openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0)
    with lacking, pytest.raises(openai.PermissionDeniedError):
        lacking.models.list()
    assert client.post("/v1/chat/completions", content=b"{").json()["error"]["code"] == "input"
    assert client.post("/v1/nothing", json={}).json()["error"]["type"] == "not_found_error"
    large = client.post("/v1/chat/completions", content=b"x" * 5_000_000)
    assert (large.status_code, large.json()["error"]["type"]) == (413, "invalid_request_error")


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_has_its_status_even_in_a_stream(
    ai: openai.OpenAI, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create: Any = ai.chat.completions.create
        create(model="fake:", messages=said("word " * 5000), stream=stream)
    assert "context" in str(caught.value)
    assert "stage" not in str(caught.value)


# --- workflows ------------------------------------------------------------------------------------


def test_a_workflow_is_asked_the_last_message(ai: openai.OpenAI, client: httpx2.Client) -> None:
    deploy(client, text("shouts_back"), "shouts_back")
    found: Any = ai.chat.completions.create(
        model="shouts_back",
        messages=[*said("first"), *said("an answer", "assistant"), *said("second")],
    )
    assert found.choices[0].message.content == "SECOND"
    assert found.choices[0].message.adjoin["sources"] == []
    run = client.get(f"/api/v1/runs/{found.choices[0].message.adjoin['run']}").json()
    assert run["workflow"] == "shouts_back"
    plain: Any = ai.completions.create(model="shouts_back", prompt="hello")
    assert plain.choices[0].text == "HELLO"
    assert plain.adjoin["run"]


def test_earlier_turns_are_its_history(ai: openai.OpenAI, client: httpx2.Client) -> None:
    deploy(client, REMEMBERS, "remembers")
    create: Any = ai.chat.completions.create
    turns = [*said("be kind", "system"), *said("first"), *said("one", "assistant"), *said("second")]
    whole = create(model="remembers", messages=turns)
    assert whole.choices[0].message.content == "system,user,assistant then second"
    given = create(
        model="remembers", messages=said("x"), extra_body={"adjoin": {"inputs": {"mark": "!"}}}
    )
    assert given.choices[0].message.content == " then x!"


def test_its_tokens_are_streamed_and_its_sources_told(
    ai: openai.OpenAI, client: httpx2.Client
) -> None:
    deploy(client, CITED, "cited")
    create: Any = ai.chat.completions.create
    chunks = list(create(model="cited", messages=said("why so"), stream=True))
    contents = [chunk.choices[0].delta.content for chunk in chunks]
    assert contents == ["why ", "so ", "[1]", None]
    told = chunks[-1].adjoin
    assert [source["text"] for source in told["sources"]] == ["a source"]
    assert "answer" not in told
    whole = create(model="cited", messages=said("why so"))
    assert whole.choices[0].message.content == "why so [1]"
    assert whole.choices[0].message.adjoin["sources"] == told["sources"]
    deploy(client, CITED.replace("cited", "shouted").replace(":cite", ":shout_with"), "shouted")
    chunks = list(create(model="shouted", messages=said("why so"), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "why so "
    assert chunks[-1].adjoin["answer"] == "WHY SO "


def test_what_several_stages_say_comes_at_the_end(ai: openai.OpenAI, client: httpx2.Client) -> None:
    deploy(client, LOOPED, "looped")
    create: Any = ai.chat.completions.create
    chunks = list(create(model="looped", messages=said("a b"), stream=True))
    assert [chunk.choices[0].delta.content for chunk in chunks] == ['["a b ","a b "]', None]


def test_a_workflow_says_what_it_takes(ai: openai.OpenAI, client: httpx2.Client) -> None:
    deploy(client, text("takes"), "takes")
    two = text("takes_two").replace(
        "{text: {type: string}}", "{a: {type: string}, text: {type: string}}"
    )
    deploy(client, two, "takes_two")
    create: Any = ai.chat.completions.create
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("takes", {"temperature": 0.5}, "temperature"),
        ("takes", {"n": 2}, "n"),
        ("takes", {"tools": [WEATHER]}, "tools"),
        ("takes", {"messages": said("x", "assistant")}, "messages"),
        ("takes_two", {}, "model"),
    ]
    for model, options, param in refused:
        with pytest.raises(openai.BadRequestError) as caught:
            create(**{"model": model, "messages": said("x"), **options})
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["param"] == param
    with pytest.raises(openai.BadRequestError):
        ai.embeddings.create(model="takes", input="x")


def test_a_stream_that_fails_says_so(ai: openai.OpenAI, client: httpx2.Client) -> None:
    deploy(client, SCRIPTED, "breaks")
    create: Any = ai.chat.completions.create
    seen = ""
    with pytest.raises(openai.APIError) as caught:
        for chunk in create(model="breaks", messages=said("a b c d"), stream=True):
            seen += chunk.choices[0].delta.content or ""
    assert seen == "a b "
    assert caught.value.type == "server_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_generation(
    ai: openai.OpenAI, client: httpx2.Client, stream: bool
) -> None:
    deploy(client, ENDLESS, "endless")
    create: Any = ai.chat.completions.create
    if stream:
        with create(model="endless", messages=said("why"), stream=True) as chunks:
            next(iter(chunks))
            _until(lambda: _generating(client) > 0)
    else:
        with pytest.raises(openai.APITimeoutError):
            create(model="endless", messages=said("why"), timeout=1)
    _until(lambda: _generating(client) == 0)
    _until(lambda: client.get("/api/v1/runs?limit=1").json()["runs"][0]["state"] == "cancelled")


def _generating(client: httpx2.Client) -> int:
    """Requests that run in any replica's engine; -1 while one does not say."""
    hosts = client.get("/api/v1/cluster").json()["hosts"].values()
    counts = [replica["running"] for host in hosts for replica in host["replicas"]]
    return -1 if None in counts else sum(counts)


def _until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)
