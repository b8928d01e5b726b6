"""The built-in functions against a context that answers from memory."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, cast

import numpy as np
import pytest
from stage_context import PASSAGE, Context, call

from adjoin import functions as fn
from adjoin.dag import Template, workflow
from adjoin.errors import DefinitionError, EngineError, InputError
from adjoin.types import Body, Message, Sampling, StageContext, Token, Tokens


@pytest.fixture
def ctx() -> Context:
    return Context()


# --- embed and retrieve ---------------------------------------------------------------------------


async def test_embed_one_text_and_many(ctx: Context) -> None:
    one = await call(fn.embed, ctx, "text", model="m")
    assert one.shape == (3,)
    many = await call(fn.embed, ctx, ["a", "b"], model="m")
    assert many.shape == (2, 3)
    assert ctx.model("m").texts == ["a", "b"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [("", "empty text"), (" \n", "empty text"), ([], "no texts"), (["a", ""], "at position 1")],
)
async def test_nothing_to_embed(ctx: Context, texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"'texts'.*{message}"):
        await call(fn.embed, ctx, texts, model="m")
    assert not ctx.models


async def test_retrieve(ctx: Context) -> None:
    vector = np.ones(3, np.float32)
    assert await call(fn.retrieve, ctx, vector, collection="c") == [PASSAGE]
    assert ctx.searched == ("c", 4)
    with pytest.raises(InputError, match=r"'k'.*k is 0"):
        await call(fn.retrieve, ctx, vector, collection="c", k=0)


# --- generate -------------------------------------------------------------------------------------


async def test_generate_emits_tokens_and_returns_the_first_sample(ctx: Context) -> None:
    assert await call(fn.generate, ctx, "hi", model="m", stop="\n", seed=3) == "Hello"
    assert ctx.bodies == [
        Tokens(tokens=(Token("Hel", (1,)),)),
        Tokens(tokens=(Token("lo", (2,)),)),
    ]
    assert ctx.model("m").sampling == Sampling(stop=("\n",), seed=3)


async def test_generate_takes_a_conversation(ctx: Context) -> None:
    messages = [Message("system", ""), Message("user", "hi")]
    assert await call(fn.generate, ctx, messages, model="m") == "Hello"


async def test_a_stage_that_stops_closes_the_generation(ctx: Context) -> None:
    def fail(body: Body) -> None:
        raise RuntimeError("cut off")

    ctx.emit = fail
    with pytest.raises(RuntimeError):
        await call(fn.generate, ctx, "hi", model="m")
    assert ctx.model("m").closed


async def test_a_generation_without_a_result_is_an_engine_error(ctx: Context) -> None:
    ctx.model("m").answers = [[Token("Hel", (1,))]]
    with pytest.raises(EngineError, match="'m'"):
        await call(fn.generate, ctx, "hi", model="m")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 10**9),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("seed", -1),
        ("presence_penalty", 3.0),
        ("frequency_penalty", -3.0),
        ("repetition_penalty", 0.0),
        ("stop", ""),
        ("stop", ["x"] * 17),
        ("stop", ["x" * 257]),
        ("prompt", ""),
        ("prompt", " \n"),
        ("prompt", []),
        ("prompt", [Message("user", " ")]),
        ("prompt", [Message("robot", "hi")]),
    ],
)
async def test_arguments_out_of_bounds_are_named(ctx: Context, argument: str, value: Any) -> None:
    arguments = {"prompt": "hi", "model": "m", argument: value}
    with pytest.raises(InputError, match=f"argument '{argument}'"):
        await call(fn.generate, ctx, **arguments)
    assert not ctx.models


# --- chunk and prompt -----------------------------------------------------------------------------


def test_chunk() -> None:
    text = "one two three.\n\nfour five six."
    assert call(fn.chunk, text, size=5) == ["one two three.", "four five six."]
    assert call(fn.chunk, text) == [text]
    with pytest.raises(InputError, match="overlap"):
        call(fn.chunk, text, size=5, overlap=5)


def test_prompt() -> None:
    assert call(fn.prompt, Template("{{ a }}-{{ b }}"), a=1, b="x") == "1-x"


# --- as parts of a graph --------------------------------------------------------------------------


def test_the_registry_names_what_each_function_needs() -> None:
    named = "chunk embed retrieve rerank prompt generate parse vote select"
    assert set(fn.BUILTINS) == set(named.split())
    assert all(name == each.name == each.ref for name, each in fn.BUILTINS.items())
    assert fn.embed.needs.model == fn.generate.needs.model == "model"
    assert fn.retrieve.needs.collection == "collection"
    assert [each.name for each in fn.BUILTINS.values() if each.wants_context] == [
        "embed",
        "retrieve",
        "rerank",
        "generate",
    ]


def test_they_connect() -> None:
    @workflow
    def rag(question: str, k: int = 4) -> Any:
        passages = fn.retrieve(fn.embed(question, model="minilm"), collection="c", k=k)
        prompt = fn.prompt("{{ passages }} {{ question }}", passages=passages, question=question)
        return fn.generate(prompt, model="small", max_tokens=8)

    assert rag.graph.model_names() == {"minilm", "small"}
    assert rag.graph.collection_names() == {"c"}


def test_a_constant_out_of_bounds_is_found_when_the_graph_is_built() -> None:
    @workflow
    def wrong(question: str) -> Any:
        return fn.generate(question, model="small", temperature=9.0)

    with pytest.raises(DefinitionError, match="temperature"):
        _ = wrong.graph


def test_a_template_is_never_the_result_of_a_stage() -> None:
    @workflow
    def injection(question: str) -> Any:
        return fn.prompt(question)

    with pytest.raises(DefinitionError, match="template"):
        _ = injection.graph


def test_importing_the_functions_loads_no_heavy_library() -> None:
    heavy = "torch transformers vllm faiss pyarrow semchunk jinja2 pypdfium2 huggingface_hub dask"
    code = (
        "import sys, adjoin.functions, adjoin.functions.ingest, adjoin.functions.models, "
        "adjoin.vector_state.collections; "
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_context_here_is_one(ctx: Context) -> None:
    """Type checkers compare the stand-in with the Protocol where it claims to be one."""
    assert cast(StageContext, ctx).model("m").name == "m"
