"""Workflows as models: which input is the question, and which output the answer."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from adjoin.dag import Binding, DataType, Graph, Literal, Parameter, Reference
from adjoin.dag import datatypes as dt
from adjoin.dag.names import INPUTS
from adjoin.errors import InputError
from adjoin.functions.answers import last_generators
from adjoin.runtime.gateway.bodies import encode
from adjoin.runtime.gateway.openai.form import Source
from adjoin.types import Generation, Message, Passage

#: Names of a question, of all earlier turns and of an answer; the first that there is counts.
QUESTIONS = ("question", "prompt", "query", "input", "message")
HISTORY = "history"
ANSWERS = ("answer", "output", "text", "response", "result", "message")
#: Arguments of ``generate`` with which its tokens are not the text that it returns.
_RESHAPING = ("n", "schema", "tools", "logprobs")


def question_of(graph: Graph) -> Parameter:
    """The input that takes what is asked: the only one without a default that takes a text, else
    one that is called as :data:`QUESTIONS` say; a list of messages takes the whole conversation.

    Raises:
        InputError: there is no such input.
    """
    texts = [each for each in graph.inputs if _takes_text(each.type)]
    required = [each for each in texts if each.required]
    if len(required) == 1:
        return required[0]
    named = {each.name: each for each in texts}
    for name in QUESTIONS:
        if name in named:
            return named[name]
    conversations = [each for each in graph.inputs if each.required and _takes_messages(each.type)]
    if not texts and len(conversations) == 1:
        return conversations[0]
    raise InputError(
        f"workflow {graph.name!r} cannot be asked: none of its inputs is the question",
        where="model",
        hint=f"call one of its text inputs {' or '.join(QUESTIONS[:3])}, or invoke the workflow",
    )


def conversation_inputs(
    graph: Graph, turns: Sequence[Message], further: Mapping[str, Any]
) -> dict[str, Any]:
    """Inputs of a run: the last message of the user is the question, what came before it the
    history, if the workflow takes one; a workflow that takes none answers the question alone.

    Args:
        further: inputs that the caller names.

    Raises:
        InputError: the workflow cannot be asked, or the last message is not the user's.
    """
    question = question_of(graph)
    if question.name in further:
        raise InputError(f"the conversation is the input {question.name!r}", where="adjoin.inputs")
    if not _takes_text(question.type):
        return {**further, question.name: list(turns)}
    last = turns[-1]
    if last.role != "user":
        raise InputError("the last message is not the user's", where="messages")
    if not last.content.strip():
        raise InputError("the last message is empty", where="messages")
    history = next((each for each in graph.inputs if each.name == HISTORY), None)
    found = {**further, question.name: last.content}
    if history is not None and _takes_messages(history.type) and HISTORY not in further:
        found[HISTORY] = list(turns[:-1])
    return found


@functools.lru_cache(maxsize=256)
def source_of(graph: Graph) -> Source:
    """Where a workflow's answer is."""
    name = answer_of(graph)
    stage = streamed_stage(graph)

    def answers(outputs: Mapping[str, Any]) -> list[Generation]:
        return [Generation(text=as_text(outputs if name is None else outputs[name]))]

    def extension(run: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
        sources = [
            passage
            for key, value in outputs.items()
            if key != name and isinstance(value, list | tuple)
            for passage in value
            if isinstance(passage, Passage)
        ]
        return {"run": run, "sources": sources}

    return Source(stage=stage, answers=answers, extension=extension)


def answer_of(graph: Graph) -> str | None:
    """The output that is the answer: the only one, else the first of :data:`ANSWERS`; None when it
    is all of them together."""
    if len(graph.outputs) == 1:
        return next(iter(graph.outputs))
    return next((name for name in ANSWERS if name in graph.outputs), None)


def streamed_stage(graph: Graph) -> str:
    """The stage whose tokens can be shown as they come; empty when there is none: several give the
    answer, or what it says is not what it returns."""
    found = last_generators(graph)
    if len(found) != 1:
        return ""
    stage = graph.stage(next(iter(found)))
    if stage.each is not None or stage.repeat is not None:
        return ""
    if any(_given(stage.bindings.get(name)) for name in _RESHAPING):
        return ""
    name = answer_of(graph)
    bound = None if name is None else graph.outputs[name]
    if not isinstance(bound, Reference) or bound.path or bound.root == INPUTS:
        return ""
    # A later stage that gives a text mostly adds to it; whether it did is told at the end.
    last = graph.stage(bound.root)
    adds = last.function.returns == dt.STRING and stage.id in _upstream(graph, last.id)
    return stage.id if last is stage or adds else ""


def as_text(value: Any) -> str:
    """A text as it is, nothing as an empty one, anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode()


def _given(bound: Binding | None) -> bool:
    return bound is not None and not (isinstance(bound, Literal) and bound.value in (None, False))


def _upstream(graph: Graph, id: str) -> set[str]:
    """The stage and all that it depends on."""
    found: set[str] = set()
    level = {id}
    while level:
        found |= level
        level = {each for id in level for each in graph.dependencies(id)} - found
    return found


def _takes_text(kind: DataType) -> bool:
    return dt.accepts(kind, "string")


def _takes_messages(kind: DataType) -> bool:
    return any(each.kind == "list" and each.args[0].name == "Message" for each in dt.members(kind))
