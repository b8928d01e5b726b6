"""``generate``: a language model's answer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any, Protocol, cast

from msgspec import Meta

from adjoin.errors import EngineError, InputError
from adjoin.types import Message, Sampling, StageContext, Token, Tokens

MAX_TOKENS = 131_072
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
_ROLES = frozenset({"system", "user", "assistant", "tool"})
#: Lowest and highest value of each number; the same as the annotations below, for values that come
#: out of other stages.
_BOUNDS: dict[str, tuple[float, float]] = {
    "max_tokens": (1, MAX_TOKENS),
    "temperature": (0, 2),
    "top_p": (0.001, 1),
    "top_k": (0, 1_000_000),
    "seed": (0, 2**63 - 1),
    "n": (1, 128),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 10),
}
_Penalty = Annotated[float, Meta(ge=-2, le=2)]


async def generate(
    ctx: StageContext,
    prompt: str | list[Message],
    *,
    model: str,
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] = 256,
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0,
    top_p: Annotated[float, Meta(ge=0.001, le=1)] = 1.0,
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] = 0,
    seed: int | None = None,
    stop: str | list[str] | None = None,
    presence_penalty: _Penalty = 0.0,
    frequency_penalty: _Penalty = 0.0,
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] = 1.0,
) -> str:
    """A model's answer to a prompt or a conversation; its tokens are emitted as they come.

    A text is one user turn, put through the model's chat template where it has one. Temperature 0
    takes the likeliest token each time; ``top_k`` 0 takes all. ``stop`` ends the answer before the
    first of these texts.

    Raises:
        InputError: the prompt is empty or too long, or a number is out of bounds.
        EngineError: the model's replica failed.
        ModelError: the model cannot be had or does not generate.
    """
    _check_prompt(prompt)
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        repetition_penalty=repetition_penalty,
    )
    check_sampling(sampling)
    answer: str | None = None
    items = ctx.model(model).generate(prompt, sampling)
    # Closed whatever happens: that is what aborts the generation.
    async with aclosing(cast(_Closable, items)):
        async for item in items:
            if isinstance(item, Token):
                ctx.emit(Tokens(tokens=(item,)))
            elif item.choice == 0:
                answer = item.text
    if answer is None:
        raise EngineError("the generation ended without a result", where=f"model {model!r}")
    return answer


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


def _check_prompt(prompt: str | Sequence[Message]) -> None:
    messages = [Message("user", prompt)] if isinstance(prompt, str) else prompt
    if not any(message.content.strip() for message in messages):
        raise InputError("empty prompt", where="argument 'prompt'", hint="give the model a text")
    for message in messages:
        if message.role not in _ROLES:
            raise InputError(
                f"unknown role {message.role!r}",
                where="argument 'prompt'",
                hint=f"choose from {', '.join(sorted(_ROLES))}",
            )


class _Closable(Protocol):
    async def aclose(self) -> Any: ...
