"""What a request asks of a model: turns, how to draw, schema and tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from adjoin.errors import DefinitionError, InputError
from adjoin.functions.builtin import schemas, tools
from adjoin.functions.builtin.generation import check_sampling
from adjoin.functions.completion import Completion
from adjoin.functions.engines.base import MAX_TOP_LOGPROBS
from adjoin.runtime.gateway.openai.requests import (
    ChatRequest,
    CompletionRequest,
    NamedTool,
    Request,
    ResponseFormat,
    Turn,
)
from adjoin.types import Message, Sampling

#: OpenAI's own default for completions.
_COMPLETION_TOKENS = 16
_MAX_CHOICES = 128
#: Parts of a message that are text.
_TEXT_PARTS = ("text", "input_text", "output_text")
_ANY_OBJECT: dict[str, Any] = {"type": "object"}


def chat_completion(request: ChatRequest, most: int) -> Completion:
    """What a chat asks for; ``most`` is the largest ``max_tokens``, and what counts without one.

    Raises:
        InputError: a field is out of bounds, or fields exclude each other; ``where`` names one.
    """
    if request.top_logprobs and not request.logprobs:
        raise InputError("top_logprobs go with logprobs", where="top_logprobs")
    told = (request.top_logprobs or 0) if request.logprobs else None
    sampling = _sampling(request, most, most, _told("top_logprobs", told))
    offered = offered_tools(request)
    schema = _answer_schema(request, offered)
    if sampling.logprobs and offered:
        raise InputError("logprobs and tools exclude each other", where="logprobs")
    return Completion(
        sampling=sampling, messages=turns(request.messages), schema=schema, tools=offered
    )


def text_completion(request: CompletionRequest, most: int) -> Completion:
    """What a completion asks for; as :func:`chat_completion`."""
    default = min(_COMPLETION_TOKENS, most)
    sampling = _sampling(request, default, most, _told("logprobs", request.logprobs))
    texts = request.prompts()
    if len(texts) * sampling.n > _MAX_CHOICES:
        raise InputError(
            f"there are {len(texts) * sampling.n} answers",
            where="n",
            hint=f"ask for {_MAX_CHOICES}",
        )
    if not all(text.strip() for text in texts):
        raise InputError("a prompt is empty", where="prompt", hint="give the model a text")
    return Completion(sampling=sampling, texts=texts)


def _told(name: str, top: int | None) -> dict[str, Any]:
    """Which probabilities are told: none, or of the drawn token and so many of the likeliest."""
    if top is None:
        return {}
    if not 0 <= top <= MAX_TOP_LOGPROBS:
        raise InputError(f"{name} is {top}", where=name, hint=f"choose 0 to {MAX_TOP_LOGPROBS}")
    return {"logprobs": True, "top_logprobs": top}


def _sampling(request: Request, default: int, most: int, told: Mapping[str, Any]) -> Sampling:
    fields = {"max_tokens": default, "temperature": 1.0, **request.sampling(), **told}
    stop = fields.pop("stop", ())
    if fields["max_tokens"] > most:
        raise InputError(
            f"max_tokens is {fields['max_tokens']}",
            where="max_tokens",
            hint=f"the most is {most}, the setting max_new_tokens",
        )
    if fields.get("top_k") == -1:  # as vLLM writes "all"
        fields["top_k"] = 0
    sampling = Sampling(
        **fields,
        n=request.n or 1,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        logit_bias=request.bias(),
    )
    check_sampling(sampling)
    if sampling.n > 1 and sampling.temperature == 0:
        raise InputError("at temperature 0 all n answers would be the same", where="n")
    return sampling


# --- messages -------------------------------------------------------------------------------------


def turns(messages: Sequence[Turn]) -> list[Message]:
    """The conversation as chat templates take it: a developer is the system, calls stand in the
    text as Hermes and Qwen models write them.

    Raises:
        InputError: a part is not text, or all of them are empty.
    """
    found = [_message(turn, at) for at, turn in enumerate(messages)]
    if not any(message.content.strip() for message in found):
        raise InputError("all messages are empty", where="messages")
    return found


def _message(turn: Turn, at: int) -> Message:
    content = turn.content if isinstance(turn.content, str) else _joined(turn.content, at)
    if turn.tool_calls:
        if turn.role != "assistant":
            raise InputError("only an assistant calls tools", where=f"messages[{at}].tool_calls")
        calls = "\n".join(
            _call_text(call.function.name, call.function.arguments, at) for call in turn.tool_calls
        )
        content = f"{content}\n{calls}" if content else calls
    role = "system" if turn.role == "developer" else turn.role
    return Message(role, content)


def _joined(parts: list[dict[str, Any]] | None, at: int) -> str:
    texts = []
    for part in parts or ():
        text = part.get("text")
        if part.get("type") not in _TEXT_PARTS or not isinstance(text, str):
            raise InputError(
                f"a part of type {str(part.get('type'))[:40]!r} is not taken here",
                where=f"messages[{at}].content",
                hint="send text",
            )
        texts.append(text)
    return "".join(texts)


def _call_text(name: str, arguments: str, at: int) -> str:
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        where = f"messages[{at}].tool_calls"
        raise InputError("the arguments of a call are not JSON", where=where) from None
    call = json.dumps({"name": name, "arguments": value}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


# --- tools and schemas ----------------------------------------------------------------------------


def offered_tools(request: ChatRequest) -> list[dict[str, Any]]:
    """The tools that the model is shown.

    Raises:
        InputError: they are no function tools, or the one that must be called is not among them.
    """
    choice = request.tool_choice
    if not request.tools:
        if choice not in (None, "none", "auto"):
            raise InputError("there are no tools to choose from", where="tool_choice")
        return []
    with_schemas = [_without_nulls(tool) for tool in request.tools]
    try:
        tools.check(with_schemas)
    except DefinitionError as error:
        raise InputError(error.message, where="tools", hint=error.hint) from None
    if choice == "none":
        return []
    if isinstance(choice, NamedTool):
        named = [t for t in with_schemas if t["function"]["name"] == choice.function.name]
        if not named:
            raise InputError(f"there is no tool {choice.function.name[:80]!r}", where="tool_choice")
        return named
    return with_schemas


def _without_nulls(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    return {**tool, "function": {k: v for k, v in function.items() if v is not None}}


def must_call(request: ChatRequest) -> bool:
    return request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool)


def _answer_schema(
    request: ChatRequest, offered: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    wanted = format_schema(request.response_format)
    if not offered:
        return wanted
    if wanted is not None:
        raise InputError("response_format and tools exclude each other", where="response_format")
    return call_schema(offered) if must_call(request) else None


def format_schema(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    """The JSON Schema of a ``response_format``; None when it asks for text.

    Raises:
        InputError: it is none.
    """
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return dict(_ANY_OBJECT)
    if wanted.json_schema is None or not wanted.json_schema.schema:
        raise InputError("there is no schema", where="response_format.json_schema")
    try:
        schemas.check(wanted.json_schema.schema)
    except DefinitionError as error:
        where = "response_format.json_schema.schema"
        raise InputError(error.message, where=where, hint=error.hint) from None
    return wanted.json_schema.schema


def call_schema(offered: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON Schema of an answer that calls one of these tools.

    Raises:
        InputError: two tools define something under one name that differs.
    """
    shared: dict[str, Any] = {}
    calls = []
    for tool in offered:
        function = tool["function"]
        arguments = dict(function.get("parameters") or _ANY_OBJECT)
        # References inside of a schema begin at its root, which is another one now.
        for name, part in arguments.pop("$defs", {}).items():
            if shared.setdefault(name, part) != part:
                raise InputError(f"tools define {name!r} in two ways", where="tools")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function["name"]}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    found = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**found, "$defs": shared} if shared else found
