"""What ``generate`` asks, and what it makes of the answers."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import msgspec
import pydantic
import pytest
from stage_context import Context, call

from adjoin import functions as fn
from adjoin.dag import workflow
from adjoin.dag.binding import literal
from adjoin.errors import DefinitionError, FunctionError, GraphError, InputError
from adjoin.functions.builtin.generation import result
from adjoin.types import Generation, Message, Reply, Token, Tokens, ToolCall

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NOW = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
CALL = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'


@pytest.fixture
def ctx() -> Context:
    return Context()


async def generate(ctx: Context, prompt: Any = "hi", **arguments: Any) -> Any:
    return await call(fn.generate, ctx, prompt, model="m", **arguments)


# --- conversations --------------------------------------------------------------------------------


async def test_history_and_system_go_before_the_prompt(ctx: Context) -> None:
    history = [Message("user", "one"), Message("assistant", "two")]
    await generate(ctx, "three", history=history, system="be brief")
    (turns, _), *_ = ctx.model("m").asked
    assert turns == [Message("system", "be brief"), *history, Message("user", "three")]
    await generate(ctx, [Message("tool", "4"), Message("user", "so?")], history=history)
    assert ctx.model("m").asked[-1][0] == [*history, Message("tool", "4"), Message("user", "so?")]


async def test_a_text_alone_stays_one(ctx: Context) -> None:
    await generate(ctx, "three")
    assert ctx.model("m").asked[0][0] == "three"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": " "}, "empty prompt"),
        ({"prompt": [Message("boss", "x")]}, "'prompt'.*unknown role 'boss'"),
        ({"history": [Message("boss", "x")]}, "'history'.*unknown role 'boss'"),
        ({"history": [Message("system", "x")], "system": "y"}, "two system messages"),
        ({"schema": CITY, "tools": [NOW]}, "schema and tools exclude each other"),
        ({"schema": CITY, "logprobs": True}, "exclude"),
        ({"n": 0}, "n is 0"),
        ({"n": 65}, "n is 65"),
    ],
)
async def test_what_is_refused(ctx: Context, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        await generate(ctx, **arguments)
    assert not ctx.model("m").asked


# --- samples --------------------------------------------------------------------------------------


async def test_samples_come_in_order_of_their_number(ctx: Context) -> None:
    ctx.model("m").answers = [[Generation(text="b", choice=1), Generation(text="a")]]
    assert await generate(ctx, n=2, temperature=1.0) == ["a", "b"]
    assert ctx.model("m").sampling.n == 2
    ctx.model("m").says("a")
    assert await generate(ctx, n=1) == ["a"]


async def test_log_probabilities_come_as_generations(ctx: Context) -> None:
    sure = Generation(text="a", tokens=1, logprob=-0.1)
    ctx.model("m").answers = [[sure]]
    assert await generate(ctx, logprobs=True) == sure
    assert await generate(ctx, logprobs=True, n=1) == [sure]
    assert ctx.model("m").sampling.logprobs


async def test_thoughts_are_emitted_and_are_not_in_the_answer(ctx: Context) -> None:
    thought = Token("hm", (1,), reasoning=True)
    ctx.model("m").answers = [[thought, Token("a", (2,)), Generation(text="a", reasoning="hm")]]
    assert await generate(ctx) == "a"
    assert ctx.bodies[0] == Tokens(tokens=(thought,))


# --- structured output ----------------------------------------------------------------------------


async def test_an_engine_with_grammars_is_held_to_the_schema(ctx: Context) -> None:
    model = ctx.model("m")
    model.can = frozenset({"generate", "schema"})
    model.says(['{"city": "Rome"}', '{"city": "Oslo"}'])
    found = await generate(ctx, schema=CITY, n=2, temperature=1.0)
    assert found == [{"city": "Rome"}, {"city": "Oslo"}]
    assert model.schemas == [CITY]
    assert model.asked[0][0] == "hi"


async def test_an_answer_that_was_cut_says_so_and_is_not_asked_for_again(ctx: Context) -> None:
    model = ctx.model("m")
    model.can = frozenset({"generate", "schema"})
    model.answers = [[Generation(text='{"city": "Ro', finish_reason="length", tokens=5)]]
    with pytest.raises(FunctionError, match=r"cut after 5 tokens.*max_tokens"):
        await generate(ctx, schema=CITY)
    assert len(model.asked) == 1


async def test_other_engines_are_told_what_was_wrong(ctx: Context) -> None:
    model = ctx.model("m")
    model.says("Rome", '{"town": "Rome"}', '```\n{"city": "Rome"}\n```')
    assert await generate(ctx, schema=CITY) == {"city": "Rome"}
    assert model.schemas == [None] * 3
    first, second, third = (turns for turns, _ in model.asked)
    assert '"required":["city"]' in str(first)
    assert len(second) == 3
    assert second[1] == Message("assistant", "Rome")
    assert "no JSON" in second[2].content  # type: ignore[union-attr]
    assert "'city' is a required property" in third[-1].content  # type: ignore[union-attr]


async def test_only_the_sample_that_is_wrong_is_repaired(ctx: Context) -> None:
    model = ctx.model("m")
    model.says(['{"city": "Rome"}', "Oslo"], '{"city": "Oslo"}')
    found = await generate(ctx, schema=CITY, n=2, temperature=1.0)
    assert found == [{"city": "Rome"}, {"city": "Oslo"}]
    assert [sampling.n for _, sampling in model.asked] == [2, 1]


async def test_it_gives_up_after_two_repairs(ctx: Context) -> None:
    ctx.model("m").says("Rome")
    with pytest.raises(FunctionError, match="no JSON in 'Rome'"):
        await generate(ctx, schema=CITY)
    assert len(ctx.model("m").asked) == 3


# --- tools ----------------------------------------------------------------------------------------


async def test_tools_are_passed_on_and_calls_are_read(ctx: Context) -> None:
    ctx.model("m").says(CALL)
    assert await generate(ctx, tools=[NOW]) == Reply("", "", (ToolCall("now", {}),))
    assert ctx.model("m").tools == [[NOW]]


async def test_a_bad_call_is_repaired_with_the_tools_at_hand(ctx: Context) -> None:
    ctx.model("m").says('<tool_call>{"name": "later"}</tool_call>', CALL)
    reply = await generate(ctx, tools=[NOW])
    assert reply.tool_calls == (ToolCall("now", {}),)
    assert ctx.model("m").tools == [[NOW], [NOW]]


# --- as part of a graph ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({}, "string"),
        ({"n": None, "schema": None, "tools": None, "logprobs": False}, "string"),
        ({"n": 8}, "list[string]"),
        ({"n": 8, "logprobs": True}, "list[Generation]"),
        ({"logprobs": True}, "Generation"),
        ({"schema": CITY}, "{city: string}"),
        ({"schema": {"type": "object"}}, "dict[string, any]"),
        ({"schema": {"type": "integer"}, "n": 2}, "list[integer]"),
        ({"tools": [NOW]}, "Reply"),
    ],
)
def test_the_type_of_the_result_depends_on_the_arguments(
    arguments: dict[str, Any], kind: str
) -> None:
    bindings = {name: literal(value) for name, value in arguments.items()}
    assert str(result(bindings)) == kind


def test_a_graph_is_checked_with_the_type_that_the_arguments_make() -> None:
    @workflow
    def votes(question: str) -> Any:
        return fn.vote(fn.generate(question, model="m", n=8, temperature=0.8))

    assert str(votes.graph.stage("generate").returns) == "list[string]"

    @workflow
    def wrong(question: str) -> Any:
        return fn.parse(fn.generate(question, model="m", n=8), into="number")

    with pytest.raises(GraphError, match=r"'parse' takes string, but .* gives list\[string\]"):
        _ = wrong.graph

    @workflow
    def called(question: str) -> Any:
        reply = fn.generate(question, model="m", tools=[NOW])
        return reply.tool_calls[0].name

    assert called.graph.outputs


def test_the_number_of_samples_is_bounded_when_the_graph_is_built() -> None:
    @workflow
    def many(question: str) -> Any:
        return fn.generate(question, model="m", n=65)

    with pytest.raises(GraphError, match="at most 64"):
        _ = many.graph


class Size(msgspec.Struct):
    metres: float


class City(msgspec.Struct):
    name: str
    kind: Literal["town", "village"]
    size: Size


class Country(pydantic.BaseModel):
    name: str
    cities: list[str]


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (City, "{kind: string, name: string, size: any}"),
        (Country, "{cities: list[string], name: string}"),
        (Point, "{x: integer}"),
    ],
)
def test_a_class_stands_for_its_schema(cls: type, kind: str) -> None:
    @workflow
    def typed(question: str) -> Any:
        return fn.generate(question, model="m", schema=cls)

    stage = typed.graph.stage("generate")
    schema: Any = stage.bindings["schema"]
    assert "properties" in str(schema.value)
    assert str(stage.returns) == kind

    @workflow
    def wrong(question: str) -> Any:
        return fn.generate(question, model="m", schema=cls)["nothing"]

    with pytest.raises(GraphError, match="no field 'nothing'"):
        _ = wrong.graph


class Odd(msgspec.Struct):
    value: complex


def test_a_wrong_schema_is_found_when_the_graph_is_built() -> None:
    @workflow
    def wrong(question: str) -> Any:
        return fn.generate(question, model="m", schema={"type": "word"})

    with pytest.raises(DefinitionError, match=r"test_generation.py:\d+.*'generate'.*wrong at type"):
        _ = wrong.graph

    @workflow
    def odd(question: str) -> Any:
        return fn.generate(question, model="m", schema=Odd)

    with pytest.raises(GraphError, match="Odd has no JSON Schema"):
        _ = odd.graph
