"""Functions that a model may ask to have called: their definitions, and the calls in an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from adjoin.errors import DefinitionError, FunctionError
from adjoin.functions.builtin import schemas
from adjoin.types import Generation, Reply, ToolCall

MAX_TOOLS = 128
_WHERE = "argument 'tools'"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: As Hermes and Qwen models write a call; the end is missing where it is also the answer's.
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_FENCE = re.compile(r"\s*```\w*\n(.*)```\s*", re.DOTALL)


def check(tools: Sequence[Any]) -> None:
    """Refuse what are no function tools.

    Raises:
        DefinitionError: says which one, and why.
    """
    if not tools or len(tools) > MAX_TOOLS:
        raise DefinitionError(
            f"there are {len(tools)} tools", where=_WHERE, hint=f"give 1 to {MAX_TOOLS}"
        )
    seen: set[str] = set()
    for at, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name) or tool.get("type") != "function":
            raise DefinitionError(
                f"tool {at} is not a function with a name",
                where=_WHERE,
                hint='write {"type": "function", "function": {"name": …, "parameters": {…}}}',
            )
        if name in seen:
            raise DefinitionError(f"two tools are called {name!r}", where=_WHERE)
        seen.add(name)
        schemas.check(_parameters(tool), where=f"parameters of tool {name!r}")


def read_reply(generation: Generation, tools: Sequence[Mapping[str, Any]]) -> Reply:
    """The text and the calls of an answer.

    Calls stand in ``<tool_call>`` tags, or the whole answer is a JSON object with the name of a
    tool and its arguments, or a list of these.

    Raises:
        FunctionError: a call that names no tool, or whose arguments do not fit it.
    """
    known = {str(tool["function"]["name"]): _parameters(tool) for tool in tools}
    text = generation.text
    if tagged := _CALL.findall(text):
        calls = tuple(_read(part, known) for part in tagged)
        return Reply(_CALL.sub("", text).strip(), generation.reasoning, calls)
    bare = _whole_answer(text)
    if bare and all(isinstance(each, dict) and each.get("name") in known for each in bare):
        return Reply("", generation.reasoning, tuple(_call(each, known) for each in bare))
    return Reply(text, generation.reasoning)


def _parameters(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = tool["function"].get("parameters") or {"type": "object"}
    return found


def _whole_answer(text: str) -> list[Any]:
    """The values of an answer that is nothing but JSON."""
    fenced = _FENCE.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else [value]


def _read(text: str, known: Mapping[str, Mapping[str, Any]]) -> ToolCall:
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        raise _unusable(f"a tool call is not JSON: {text.strip()[:80]!r}") from None
    if not isinstance(call, dict):
        raise _unusable(f"a tool call is not an object: {text.strip()[:80]!r}")
    return _call(call, known)


def _call(call: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> ToolCall:
    name = str(call.get("name"))
    if name not in known:
        raise _unusable(f"there is no tool {name[:80]!r}, only {', '.join(sorted(known))}")
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise _unusable(f"the arguments of {name!r} are not JSON") from None
    if not isinstance(arguments, dict):
        raise _unusable(f"the arguments of {name!r} are not an object")
    if reason := schemas.misfit(arguments, known[name]):
        raise _unusable(f"the arguments of {name!r} do not fit: {reason}")
    return ToolCall(name, arguments)


def _unusable(reason: str) -> FunctionError:
    return FunctionError(
        reason, hint="try again, or show the model how a call looks", type="ParseError"
    )
