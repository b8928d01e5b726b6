"""``generate``: a language model's answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Protocol, TypeVar, cast

import msgspec
from msgspec import Meta

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import from_annotation
from adjoin.dag.binding import Binding, Literal
from adjoin.dag.datatypes import DataType
from adjoin.errors import EngineError, FunctionError, InputError
from adjoin.functions.builtin import schemas
from adjoin.functions.builtin import tools as toolbox
from adjoin.functions.builtin.conversation import asking_for, conversation, repairing
from adjoin.functions.builtin.parsing import parse_json
from adjoin.types import (
    Generation,
    Message,
    ModelClient,
    Reply,
    Sampling,
    StageContext,
    Token,
    Tokens,
)

MAX_TOKENS = 131_072
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
#: How often a model is told that its answer cannot be used, and asked again.
REPAIRS = 2
#: Lowest and highest value of each number; the same as the annotations below, for values that come
#: out of other stages.
_BOUNDS: dict[str, tuple[float, float]] = {
    "max_tokens": (1, MAX_TOKENS),
    "temperature": (0, 2),
    "top_p": (0.001, 1),
    "top_k": (0, 1_000_000),
    "seed": (0, 2**63 - 1),
    "n": (1, 64),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 10),
    "min_tokens": (0, MAX_TOKENS),
}
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_T = TypeVar("_T")


async def generate(
    ctx: StageContext,
    prompt: str | list[Message],
    *,
    model: str,
    history: list[Message] | None = None,
    system: str | None = None,
    n: Annotated[int | None, Meta(ge=1, le=64)] = None,
    schema: dict[str, Any] | None = None,
    tools: list[dict[str, Any]] | None = None,
    logprobs: bool = False,
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] = 256,
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0,
    top_p: Annotated[float, Meta(ge=0.001, le=1)] = 1.0,
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] = 0,
    seed: int | None = None,
    stop: str | list[str] | None = None,
    presence_penalty: _Penalty = 0.0,
    frequency_penalty: _Penalty = 0.0,
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] = 1.0,
) -> Any:
    """A model's answer to a prompt or a conversation; its tokens are emitted as they come.

    A text is one user turn, put through the model's chat template where it has one; ``history`` and
    a ``system`` message go before it. Temperature 0 takes the likeliest token each time; ``top_k``
    0 takes all. ``stop`` ends the answer before the first of these texts. What the model thinks
    before it answers is emitted as reasoning and is no part of the answer.

    Returns a text. With ``logprobs`` a :class:`Generation`; with ``schema`` (a JSON Schema; in
    Python also a pydantic model, a dataclass or a msgspec structure) the value that fits it; with
    ``tools`` (function tools in OpenAI's shape) a :class:`Reply`. Where ``n`` is given, a list of
    so many of these: samples of one prompt, which is computed once.

    Raises:
        InputError: the prompt is empty or too long, a number is out of bounds, or arguments exclude
            each other.
        DefinitionError: the schema or a tool is not one.
        FunctionError: the answer does not fit the schema or the tools, after two repairs where the
            engine has no grammars.
        EngineError: the model's replica failed.
        ModelError: the model cannot be had or does not generate.
    """
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        n=1 if n is None else n,
        logprobs=logprobs,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        repetition_penalty=repetition_penalty,
    )
    check_sampling(sampling)
    turns = conversation(prompt, history, system)
    _check_form(schema, tools, logprobs=logprobs)
    asked = _Asked(ctx, ctx.model(model), turns, sampling)
    found: Sequence[Any]
    if schema is not None:
        found = await _structured(asked, schema)
    elif tools is not None:
        first = await asked.samples(tools=tools)
        found = [await asked.repaired(each, _reply_reader(tools), tools=tools) for each in first]
    else:
        generations = await asked.samples()
        found = generations if logprobs else [each.text for each in generations]
    return found[0] if n is None else list(found)


def result(bindings: Mapping[str, Binding]) -> DataType:
    """What a stage gives, by the arguments that it has.

    Raises:
        DefinitionError: a schema or tools that are written down are none; ``details`` name the
            argument.
    """
    one = dt.STRING
    if _given(logprobs := bindings.get("logprobs"), off=False):
        one = from_annotation(Generation) if isinstance(logprobs, Literal) else dt.ANY
    if _given(tools := bindings.get("tools")):
        one = from_annotation(Reply)
        if isinstance(tools, Literal):
            toolbox.check(tools.value)
    if _given(schema := bindings.get("schema")):
        one = dt.ANY
        if isinstance(schema, Literal):
            schemas.check(schema.value)
            one = schemas.data_type(schema.value)
    return dt.list_of(one) if _given(bindings.get("n")) else one


def _given(bound: Binding | None, off: object = None) -> bool:
    return bound is not None and not (isinstance(bound, Literal) and bound.value in (None, off))


class _Asked:
    """One question to one model, which may have to be asked again; its tokens are emitted unless it
    is ``quiet``."""

    def __init__(
        self,
        ctx: StageContext,
        model: ModelClient,
        turns: str | list[Message],
        sampling: Sampling,
        *,
        quiet: bool = False,
    ) -> None:
        self.model = model
        self.turns = turns
        self._ctx = ctx
        self._quiet = quiet
        self._sampling = sampling

    async def samples(
        self,
        schema: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[Generation]:
        """All samples, in order."""
        return await self._ask(self.turns, self._sampling, 0, schema, tools)

    async def repaired(
        self,
        generation: Generation,
        read: Callable[[Generation], _T],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> _T:
        """What ``read`` makes of a sample; when it cannot, the model is told why and asked again.

        Raises:
            FunctionError: no answer could be read.
        """
        turns = self.turns
        alone = msgspec.structs.replace(self._sampling, n=1)
        for _ in range(REPAIRS):
            try:
                return read(generation)
            except FunctionError as error:
                turns = repairing(turns, generation.text, error.message)
            (generation,) = await self._ask(turns, alone, generation.choice, None, tools)
        return read(generation)

    async def _ask(
        self,
        turns: str | list[Message],
        sampling: Sampling,
        first: int,
        schema: Mapping[str, Any] | None,
        tools: Sequence[Mapping[str, Any]],
    ) -> list[Generation]:
        found: list[Generation] = []
        items = self.model.generate(turns, sampling, schema=schema, tools=tools)
        # Closed whatever happens: that is what aborts the generation.
        async with aclosing(cast(_Closable, items)):
            async for item in items:
                numbered = renumbered(item, first)
                if isinstance(numbered, Token):
                    if not self._quiet:
                        self._ctx.emit(Tokens(tokens=(numbered,)))
                else:
                    found.append(numbered)
        found.sort(key=lambda generation: generation.choice)
        if len(found) != sampling.n:
            where = f"model {self.model.name!r}"
            raise EngineError("the generation ended without a result", where=where)
        return found


def renumbered(item: Token | Generation, first: int) -> Token | Generation:
    return msgspec.structs.replace(item, choice=item.choice + first) if first else item


async def _structured(asked: _Asked, schema: Mapping[str, Any]) -> list[Any]:
    """Values that fit the schema: by the engine's grammar, else by asking for them."""
    if "schema" in await asked.model.capabilities():
        return [_fitting(each, schema) for each in await asked.samples(schema=schema)]
    asked.turns = asking_for(asked.turns, schema)
    return [
        await asked.repaired(each, lambda answer: parse_json(answer.text, schema))
        for each in await asked.samples()
    ]


def _fitting(generation: Generation, schema: Mapping[str, Any]) -> Any:
    """The value of a sample that a grammar held to the schema, and that may have been cut."""
    if generation.finish_reason == "length":
        raise FunctionError(
            f"the answer was cut after {generation.tokens} tokens, before its JSON was complete",
            hint="raise max_tokens, or bound texts and lists in the schema",
            type="ParseError",
        )
    return parse_json(generation.text, schema)


async def in_words(
    ctx: StageContext,
    model: ModelClient,
    turns: list[Message],
    sampling: Sampling,
    schema: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[Generation]:
    """Answers whose text is JSON that fits the schema, from an engine without grammars. No token is
    emitted: what has been shown could not be repaired.

    Raises:
        FunctionError: an answer does not fit, after repairs.
    """
    asked = _Asked(ctx, model, asking_for(turns, schema), sampling, quiet=True)

    def fitting(answer: Generation) -> Generation:
        text = json.dumps(parse_json(answer.text, schema), ensure_ascii=False)
        return msgspec.structs.replace(answer, text=text, finish_reason="stop")

    return [
        await asked.repaired(each, fitting, tools=tools)
        for each in await asked.samples(tools=tools)
    ]


def _reply_reader(tools: Sequence[Mapping[str, Any]]) -> Callable[[Generation], Reply]:
    return lambda generation: toolbox.read_reply(generation, tools)


def _check_form(
    schema: Mapping[str, Any] | None, tools: Sequence[Mapping[str, Any]] | None, *, logprobs: bool
) -> None:
    asked = {"schema": schema is not None, "tools": tools is not None, "logprobs": logprobs}
    given = [name for name, is_given in asked.items() if is_given]
    if len(given) > 1:
        raise InputError(
            f"{' and '.join(given)} exclude each other",
            where=f"argument {given[-1]!r}",
            hint="each of them changes what the stage returns; give one",
        )
    if schema is not None:
        schemas.check(schema)
    if tools is not None:
        toolbox.check(tools)


def check_sampling(sampling: Sampling) -> Sampling:
    """Itself; raises :class:`InputError` naming the first argument that is out of bounds."""
    for name, (low, high) in _BOUNDS.items():
        value = getattr(sampling, name)
        if name == "seed" and value is None:
            continue
        if isinstance(value, bool) or not low <= value <= high:  # NaN is not in any range
            raise InputError(
                f"{name} is {value}", where=f"argument {name!r}", hint=f"choose {low:g} to {high:g}"
            )
    if sampling.min_tokens > sampling.max_tokens:
        raise InputError(
            f"min_tokens is {sampling.min_tokens}, above max_tokens, {sampling.max_tokens}",
            where="argument 'min_tokens'",
        )
    if len(sampling.stop) > MAX_STOPS:
        raise InputError(
            f"there are {len(sampling.stop)} stop texts",
            where="argument 'stop'",
            hint=f"give at most {MAX_STOPS}",
        )
    for text in sampling.stop:
        if not 1 <= len(text) <= MAX_STOP_LENGTH:
            raise InputError(
                f"a stop text has {len(text)} characters",
                where="argument 'stop'",
                hint=f"choose 1 to {MAX_STOP_LENGTH}",
            )
    return sampling


class _Closable(Protocol):
    async def aclose(self) -> Any: ...
