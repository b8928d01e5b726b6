"""``complete``: what the service's OpenAI-compatible API asks of a model.

No built-in function of workflows: it gives all that a model says about its answers, and takes
prompts that no chat template touches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, cast

import msgspec

from adjoin.dag import Needs, Policy, builtin
from adjoin.dag.names import MAX_SECONDS
from adjoin.errors import EngineError
from adjoin.functions.builtin import generation
from adjoin.types import Generation, Message, ModelClient, Sampling, StageContext, Token, Tokens

#: A replica that is lost before its first token costs no answer.
_ATTEMPTS = 2


class Completion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation, or texts that the model goes on with as they are.

    Attributes:
        schema: the JSON Schema of the answer: by the engine's grammar, else asked for in words and
            repaired.
        tools: shown to the model; calls are left in the text of the answer.
    """

    sampling: Sampling
    messages: list[Message] = []
    texts: list[str] = []
    schema: dict[str, Any] | None = None
    tools: list[dict[str, Any]] = []


def packed(completion: Completion) -> bytes:
    """As :func:`complete` takes it: one value, which nothing on the way looks into."""
    return msgspec.msgpack.encode(completion)


async def complete(ctx: StageContext, request: bytes, *, model: str) -> list[Generation]:
    """``sampling.n`` samples for the conversation or for each text, in order; the samples of text
    ``i`` are choices ``i * n`` and following.

    Args:
        request: a :class:`Completion`, :func:`packed`.

    Raises:
        InputError: a prompt is empty or too long, or a number is out of bounds.
        FunctionError: the answer does not fit the schema, after repairs.
        EngineError: the model's replica failed.
        ModelError: the model cannot be had or does not generate.
    """
    asked = msgspec.msgpack.decode(request, type=Completion)
    client = ctx.model(model)
    if asked.schema is not None and "schema" not in await client.capabilities():
        turns, sampling = asked.messages, asked.sampling
        return await generation.in_words(ctx, client, turns, sampling, asked.schema, asked.tools)
    prompts: Sequence[str | list[Message]] = asked.texts or [asked.messages]
    if len(prompts) == 1:
        return await _say(ctx, client, asked, prompts[0], 0)
    n = asked.sampling.n
    works = [
        asyncio.ensure_future(_say(ctx, client, asked, prompt, at * n))
        for at, prompt in enumerate(prompts)
    ]
    try:
        return [each for found in await asyncio.gather(*works) for each in found]
    finally:
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)


async def _say(
    ctx: StageContext,
    client: ModelClient,
    asked: Completion,
    prompt: str | list[Message],
    first: int,
) -> list[Generation]:
    found: list[Generation] = []
    items = client.generate(
        prompt, asked.sampling, raw=isinstance(prompt, str), schema=asked.schema, tools=asked.tools
    )
    # Closed whatever happens: that is what aborts the generation.
    async with aclosing(cast(Any, items)):
        async for item in items:
            numbered = generation.renumbered(item, first)
            if isinstance(numbered, Token):
                ctx.emit(Tokens(tokens=(numbered,)))
            else:
                found.append(numbered)
    if len(found) != asked.sampling.n:
        where = f"model {client.name!r}"
        raise EngineError("the generation ended without a result", where=where)
    return sorted(found, key=lambda generation: generation.choice)


#: How long an answer may take is the run's own limit.
COMPLETE = builtin(
    complete, needs=Needs(model="model"), policy=Policy(timeout=MAX_SECONDS, attempts=_ATTEMPTS)
)
