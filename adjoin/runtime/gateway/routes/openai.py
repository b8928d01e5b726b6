"""OpenAI's API: models of the store and the tenant's workflows, asked in the way that most clients
know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from adjoin.errors import InputError, NotFound
from adjoin.functions.completion import Completion, packed
from adjoin.runtime.gateway.access import Invoker, Principal
from adjoin.runtime.gateway.asked import Asked, respond, without_stage
from adjoin.runtime.gateway.asks import Ask, Slot, urgency_of
from adjoin.runtime.gateway.bodies import answer
from adjoin.runtime.gateway.departure import unless_left
from adjoin.runtime.gateway.direct import DirectRoute
from adjoin.runtime.gateway.idempotency import durability
from adjoin.runtime.gateway.openai import meaning
from adjoin.runtime.gateway.openai.answers import Model, Models, embeddings
from adjoin.runtime.gateway.openai.conversing import conversation_inputs, source_of
from adjoin.runtime.gateway.openai.form import Form, Source
from adjoin.runtime.gateway.openai.requests import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    read,
    read_plain,
)
from adjoin.runtime.gateway.records import RunRecord
from adjoin.runtime.gateway.service import Service, service_of
from adjoin.runtime.policies.quota import prompt_tokens
from adjoin.types import Message

_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "An error", "content": {"application/json": {"schema": _ERROR}}}
}
router = APIRouter(prefix="/v1", tags=["openai"], responses=_RESPONSES, route_class=DirectRoute)

#: Of a chat that does not say how long its answer may be.
_USUAL_TOKENS = 1024
_Asked = TypeVar("_Asked", ChatRequest, CompletionRequest)

_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}
_PLAIN = Source(stage="answer", answers=lambda outputs: list(outputs["output"]), single=True)


@router.get("/models")
async def list_models(request: Request, caller: Invoker) -> Response:
    """What can be named as a model: the tenant's workflows, and models that the server allows."""
    service = service_of(request)
    found = _workflows(service, caller.tenant)
    known = {each.id for each in found}
    plain = [Model(id=name) for name in service.models.names() if name not in known]
    return answer(Models(data=found + plain))


@router.get("/models/{name:path}")
async def get_model(request: Request, name: str, caller: Invoker) -> Response:
    """One of them."""
    service = service_of(request)
    found = {each.id: each for each in _workflows(service, caller.tenant)}
    if name in found:
        return answer(found[name])
    if service.models.allows(name):
        return answer(Model(id=name))
    raise NotFound(f"there is no model {name[:100]!r}", where="model")


@router.post("/chat/completions", openapi_extra=_BODY)
async def chat(request: Request, caller: Invoker) -> Response:
    """Go on with a conversation. With `stream` the answer comes as server-sent events. A model
    that is a workflow is run with the last message as its question."""
    with service_of(request).runs.take(caller.tenant) as slot:
        asked = read(await request.body(), ChatRequest)
        return await _complete(request, caller, asked, meaning.chat_completion, slot)


@router.post("/completions", openapi_extra=_BODY)
async def completions(request: Request, caller: Invoker) -> Response:
    """Go on with a text, or each of several, as they are: no chat template is put around them. A
    model that is a workflow is run with the text as its question."""
    with service_of(request).runs.take(caller.tenant) as slot:
        asked = read(await request.body(), CompletionRequest)
        return await _complete(request, caller, asked, meaning.text_completion, slot)


async def _complete(
    request: Request,
    caller: Principal,
    asked: _Asked,
    understand: Callable[[_Asked, int], Completion],
    slot: Slot,
) -> Response:
    service = service_of(request)
    ask = Ask(slot, urgency=urgency_of(request))
    if service.deployments.has(caller.tenant, asked.model):
        found = _of_workflow(service, caller.tenant, asked, ask)
    else:
        completion = understand(asked, service.settings.max_new_tokens)
        ask = replace(ask, tokens=_most_tokens(asked, completion), width=_width(completion))
        found = _of_model(service, caller.tenant, asked, completion, ask)
    return await respond(request, service, found)


def _most_tokens(asked: ChatRequest | CompletionRequest, completion: Completion) -> float:
    """About what a request takes at most. A chat that does not say how long its answer may be would
    ask for the longest there is: it counts for what answers rarely pass."""
    most = completion.sampling.max_tokens
    if isinstance(asked, ChatRequest) and "max_tokens" not in asked.sampling():
        most = min(most, _USUAL_TOKENS)
    read = prompt_tokens([completion.texts, [turn.content for turn in completion.messages]])
    return read + most * _width(completion)


def _width(completion: Completion) -> int:
    """The sequences of a request."""
    return completion.sampling.n * max(1, len(completion.texts))


@router.post("/embeddings", openapi_extra=_BODY)
async def embed(request: Request, caller: Invoker) -> Response:
    """Unit vectors of a text, or of each of several."""
    service = service_of(request)
    with service.runs.take(caller.tenant) as slot:
        record, asked = await _start_embedding(request, caller, slot)
    with without_stage():
        ended = await unless_left(request, record.outcome(), lambda: record.left("the client left"))
    base64 = asked.encoding_format == "base64"
    found = embeddings(ended.outputs["output"], asked.model, ended.usage, as_base64=base64)
    return answer(found, headers={"X-Run-Id": record.id})


async def _start_embedding(
    request: Request, caller: Principal, slot: Slot
) -> tuple[RunRecord, EmbeddingRequest]:
    service = service_of(request)
    asked = read_plain(await request.body(), EmbeddingRequest)
    if asked.dimensions is not None:
        raise InputError("vectors have the dimension of their model", where="dimensions")
    texts = asked.texts()
    if service.deployments.has(caller.tenant, asked.model):
        raise InputError("a workflow is no embedding model", where="model")
    deployment = service.models.find(caller.tenant, asked.model, "embed")
    ask = Ask(slot, urgency=urgency_of(request), tokens=prompt_tokens(texts), width=len(texts))
    how = await durability(request, plain="embed")
    return await service.begin(deployment, {"texts": texts}, ask, how), asked


def _workflows(service: Service, tenant: str) -> list[Model]:
    return [
        Model(id=each.name, created=int(each.created), owned_by="workflow")
        for each in service.deployments.current()
        if each.tenant == tenant
    ]


def _of_model(
    service: Service,
    tenant: str,
    asked: ChatRequest | CompletionRequest,
    completion: Completion,
    ask: Ask,
) -> Asked:
    """A request to a model.

    Raises:
        NotFound: there is no such model.
        InputError: the model is of another kind, or the request has what only a workflow takes.
    """
    deployment = service.models.find(tenant, asked.model, "generate")
    if asked.adjoin is not None:
        raise InputError("only a workflow takes inputs", where="adjoin")
    form = Form(
        kind="chat" if isinstance(asked, ChatRequest) else "text",
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=asked.include_usage,
        logprobs=completion.sampling.logprobs,
        top_logprobs=completion.sampling.top_logprobs,
        tools=completion.tools,
        one_call=isinstance(asked, ChatRequest) and asked.parallel_tool_calls is False,
        choices=_width(completion),
    )
    return Asked(deployment, {"request": packed(completion)}, form, _PLAIN, ask)


def _of_workflow(
    service: Service, tenant: str, asked: ChatRequest | CompletionRequest, ask: Ask
) -> Asked:
    """A workflow's question. What says how to draw tokens goes to its inputs of those names.

    Raises:
        InputError: the request has what a workflow cannot be told.
    """
    deployment = service.deployments.find(tenant, asked.model)
    graph = deployment.graph
    form, turns = _workflow_form(asked)
    known = {each.name for each in graph.inputs}
    said = asked.sampling()
    for name in said:
        if name not in known:
            raise InputError(
                f"workflow {graph.name!r} has no input {name!r}",
                where=name,
                hint="leave the field out, or give the workflow such an input",
            )
    further: dict[str, Any] = dict(asked.adjoin.inputs) if asked.adjoin is not None else {}
    inputs = conversation_inputs(graph, turns, {**said, **further})
    return Asked(deployment, inputs, form, source_of(graph), ask)


def _workflow_form(asked: ChatRequest | CompletionRequest) -> tuple[Form, list[Message]]:
    """How the answer is written, and the conversation; what only a model can be told is refused."""
    if isinstance(asked, ChatRequest):
        only_models = {
            "tools": asked.tools,
            "response_format": meaning.format_schema(asked.response_format),
            "logprobs": asked.logprobs,
            "top_logprobs": asked.top_logprobs,
        }
        turns = meaning.turns(asked.messages)
    else:
        only_models = {"logprobs": asked.logprobs is not None}
        texts = asked.prompts()
        if len(texts) > 1:
            raise InputError("a workflow is asked one question", where="prompt")
        turns = [Message("user", texts[0])]
    only_models |= {"n": (asked.n or 1) > 1, "logit_bias": asked.logit_bias}
    for name, value in only_models.items():
        if value:
            raise InputError(f"a workflow takes no {name}", where=name)
    form = Form(
        kind="chat" if isinstance(asked, ChatRequest) else "text",
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=asked.include_usage,
    )
    return form, turns
