"""Requests in OpenAI's shape, with vLLM's further fields. Nothing in them is ignored silently: what
has no effect here is listed, what cannot be done is refused, and so is what is not known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from adjoin.errors import InputError
from adjoin.functions.engines.base import check_bias
from adjoin.runtime.gateway.bodies import parse_json

MAX_MESSAGES = 4096
MAX_PROMPTS = 64
#: As OpenAI has it.
MAX_TEXTS = 2048
#: Of a token id.
_MAX_DIGITS = 9
_PATH = re.compile(r" - at `\$\.?([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")
_AtMost = TypeVar("_AtMost", bound="Request")

#: Fields that are taken only with the values which ask for nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": (),
    "functions": ([],),
    "include_stop_str_in_output": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "prediction": (),
    "prompt_logprobs": (0,),
    "reasoning_effort": (),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "store": (False,),
    "suffix": ("",),
    "use_beam_search": (False,),
    "verbosity": (),
    "web_search_options": (),
}
#: Fields that are taken and have no effect.
WITHOUT_EFFECT = ("user", "metadata", "safety_identifier", "prompt_cache_key")
#: What says how to draw tokens, by the names that workflows' inputs have too.
SAMPLING = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
)


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What requests for text have in common; a null is the same as nothing."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=64)] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, float] | None = None

    best_of: Any = None
    include_stop_str_in_output: Any = None
    min_p: Any = None
    prompt_logprobs: Any = None
    service_tier: Any = None
    skip_special_tokens: Any = None
    store: Any = None
    use_beam_search: Any = None

    user: str | None = None
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def bias(self) -> tuple[tuple[int, float], ...]:
        """``logit_bias`` by token id.

        Raises:
            InputError: a key is no token id, two are the same, or it is out of bounds.
        """
        found: dict[int, float] = {}
        for key, value in (self.logit_bias or {}).items():
            # Not int() alone, which takes "1_0" and " 1 ".
            if not (key.isascii() and key.isdigit() and len(key) <= _MAX_DIGITS):
                raise InputError(f"{key[:20]!r} is no token id", where="logit_bias")
            if int(key) in found:
                raise InputError(f"token {int(key)} is there twice", where="logit_bias")
            found[int(key)] = value
        bias = tuple(found.items())
        check_bias(bias)
        return bias

    def sampling(self) -> dict[str, Any]:
        """What was said about how to draw tokens, by name."""
        return {
            name: value for name in SAMPLING if (value := getattr(self, name, None)) is not None
        }


class CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str = "{}"


class Called(msgspec.Struct, frozen=True):
    """A call in an earlier answer."""

    function: CalledFunction
    id: str = ""
    type: Literal["function"] = "function"


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message. What answers carry may come back with it: the thoughts of earlier answers are not
    shown to the model again, and ``name`` is not shown either."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[Called] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    adjoin: dict[str, Any] | None = None


class JsonSchema(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    schema: dict[str, Any] = {}
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class NamedFunction(msgspec.Struct, frozen=True):
    name: str


class NamedTool(msgspec.Struct, frozen=True, kw_only=True):
    function: NamedFunction
    type: Literal["function"] = "function"


class Extension(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request may tell a workflow beside the conversation."""

    inputs: dict[str, Any] = {}


class ChatRequest(Request, frozen=True, kw_only=True):
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    adjoin: Extension | None = None

    audio: Any = None
    function_call: Any = None
    functions: Any = None
    modalities: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None

    def sampling(self) -> dict[str, Any]:
        found = super().sampling()
        most = self.max_completion_tokens
        if most is not None:
            if found.get("max_tokens", most) != most:
                raise InputError(
                    "max_tokens and max_completion_tokens differ", where="max_completion_tokens"
                )
            found["max_tokens"] = most
        return found


class CompletionRequest(Request, frozen=True, kw_only=True):
    prompt: str | list[Any]
    logprobs: int | None = None
    adjoin: Extension | None = None

    echo: Any = None
    suffix: Any = None

    def prompts(self) -> list[str]:
        """Raises :class:`InputError` for token ids, and for none or too many."""
        found = [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)
        return _texts(found, "prompt", MAX_PROMPTS)


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1, max_length=200)]
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None

    def texts(self) -> list[str]:
        """Raises :class:`InputError` for token ids, and for none or too many."""
        found = [self.input] if isinstance(self.input, str) else list(self.input)
        return _texts(found, "input", MAX_TEXTS)


def read(data: bytes, kind: type[_AtMost]) -> _AtMost:
    """A request for text.

    Raises:
        InputError: it is not JSON, lacks a field, has one that is not known or that asks for
            something that cannot be done; ``where`` names the field.
    """
    found = read_plain(data, kind)
    for name in found.__struct_fields__:
        if name in NEUTRAL and (value := getattr(found, name)) is not None:
            _check_neutral(name, value)
    if found.stream_options is not None and not found.stream:
        raise InputError("stream_options go with stream", where="stream_options")
    return found


_T = TypeVar("_T", bound=msgspec.Struct)


def read_plain(data: bytes, kind: type[_T]) -> _T:
    """As :func:`read`, without what requests for text have in common."""
    value = parse_json(data)
    if not isinstance(value, dict):
        raise InputError("the body must be a JSON object")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None


def _misfit(text: str) -> InputError:
    place = _PATH.search(text)
    where = place[1] if place else ""
    if unknown := _UNKNOWN.match(text):
        where = f"{where}.{unknown[1]}" if where else unknown[1]
        return InputError(f"the field {unknown[1][:100]!r} is not known", where=where)
    return InputError(_PATH.sub("", text), where=where)


def _check_neutral(name: str, value: Any) -> None:
    allowed = NEUTRAL[name]
    if not any(_same(value, each) for each in allowed):
        hint = f"leave it out, or give {' or '.join(map(repr, allowed))}" if allowed else ""
        raise InputError(
            f"{name} is not supported here", where=name, hint=hint or "leave the field out"
        )


def _same(value: Any, other: Any) -> bool:
    """In JSON true is not 1."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _texts(found: list[Any], name: str, most: int) -> list[str]:
    if not 1 <= len(found) <= most:
        raise InputError(f"there are {len(found)} texts", where=name, hint=f"send 1 to {most}")
    for each in found:
        if not isinstance(each, str):
            raise InputError(
                "token ids are not taken here", where=name, hint="send a text, or a list of texts"
            )
    return found
