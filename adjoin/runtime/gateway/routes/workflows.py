"""Workflows: deployed, looked at, invoked, deleted."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from adjoin.errors import InputError
from adjoin.functions.answers import last_generators
from adjoin.runtime.gateway.access import Deployer, Invoker
from adjoin.runtime.gateway.asks import Ask, urgency_of
from adjoin.runtime.gateway.bodies import answer, read_object
from adjoin.runtime.gateway.departure import unless_left
from adjoin.runtime.gateway.deployments import Deployment
from adjoin.runtime.gateway.direct import DirectRoute
from adjoin.runtime.gateway.idempotency import durability
from adjoin.runtime.gateway.service import service_of
from adjoin.runtime.gateway.sse import EventStream, wants_events
from adjoin.runtime.gateway.tracing import trace_of

router = APIRouter(prefix="/api/v1/workflows", tags=["workflows"], route_class=DirectRoute)

_TEXT = {"schema": {"type": "string"}}
_PUT = {"requestBody": {"content": {"application/yaml": _TEXT, "application/json": {"schema": {}}}}}
_INVOKE = {
    "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
    "responses": {"202": {"description": "Accepted: the run's address is in Location."}},
}


@router.get("")
async def list_workflows(request: Request, caller: Invoker) -> Response:
    """The tenant's workflows, and versions of them that still have runs."""
    found = service_of(request).deployments.of(caller.tenant)
    return answer({"workflows": [_summary(each) for each in found]})


@router.put("/{name}", openapi_extra=_PUT)
async def deploy(request: Request, name: str, caller: Deployer) -> Response:
    """Deploy a workflow's text, YAML or JSON. The same text again changes nothing; another one
    takes the runs that come from now on."""
    service = service_of(request)
    data = await request.body()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("the workflow's text is not UTF-8") from None
    graph = await asyncio.to_thread(service.read, text)
    if graph.name != name:
        raise InputError(
            f"the workflow calls itself {graph.name!r}", hint=f"put it at workflows/{graph.name}"
        )
    deployed, changed = service.deployments.deploy(caller.tenant, graph, text)
    created = changed and deployed.revision == 1
    return answer({**_summary(deployed), "changed": changed}, 201 if created else 200)


@router.get("/{name}")
async def get_workflow(request: Request, name: str, caller: Invoker) -> Response:
    """A workflow with the JSON Schema of its inputs, its stages in order, those whose tokens are
    its answer, and its canonical text."""
    found = service_of(request).deployments.find(caller.tenant, name)
    return answer(
        {
            **_summary(found),
            "inputs": _inputs(found),
            "stages": [stage.id for stage in found.graph.stages],
            "answers": sorted(last_generators(found.graph)),
            "text": found.graph.to_yaml(),
        },
        headers={"ETag": f'"{found.graph.version}"'},
    )


@router.delete("/{name}")
async def delete(request: Request, name: str, caller: Deployer) -> Response:
    """Take a workflow away. Runs that were accepted go on to their end."""
    return answer(_summary(service_of(request).deployments.delete(caller.tenant, name)))


@router.get("/{name}/explain")
async def explain(request: Request, name: str, caller: Invoker) -> Response:
    """Where each stage would run now, and why."""
    service = service_of(request)
    found = service.deployments.find(caller.tenant, name)
    return answer((await service.runtime.aexplain(found.runnable)).to_dict())


@router.get("/{name}/graph.svg")
async def picture(request: Request, name: str, caller: Invoker) -> Response:
    """The workflow as a picture."""
    found = service_of(request).deployments.find(caller.tenant, name)
    text = await asyncio.to_thread(found.graph.to_svg)
    # Opened by itself it is a document of this origin: it may load and run nothing.
    policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    return Response(text, media_type="image/svg+xml", headers={"Content-Security-Policy": policy})


@router.post("/{name}/invoke", openapi_extra=_INVOKE)
async def invoke(
    request: Request,
    name: str,
    caller: Invoker,
    timeout: Annotated[
        float | None, Query(gt=0, le=86_400, description="Seconds until the run is cut off.")
    ] = None,
    budget: Annotated[
        int | None, Query(ge=1, le=2**53, description="Tokens that the run may use.")
    ] = None,
) -> Response:
    """Run a workflow with the inputs in the body. Waits for its end; with
    `Accept: text/event-stream` its events come as they happen; with `Prefer: respond-async` the
    answer is the run's id. A client that leaves ends its run, unless that is durable: asynchronous,
    or asked for with an `Idempotency-Key`, under which the same request has the same answer."""
    service = service_of(request)
    found = service.deployments.find(caller.tenant, name)
    events = wants_events(request)
    later = "respond-async" in request.headers.get("prefer", "").lower() and not events
    with service.runs.take(caller.tenant, found) as slot:
        inputs = await read_object(request)
        ask = Ask(slot, timeout, attended=not later, urgency=urgency_of(request))
        how = await durability(request, later=later, tokens=budget)
        record = await service.begin(found, inputs, ask, how, streaming=events, tokens=budget)
    record.trace = record.trace or trace_of(request)
    if events:
        return EventStream(record, owned=True)
    headers = {"X-Run-Id": record.id}
    if later:
        place = {"Location": f"/api/v1/runs/{record.id}", "Preference-Applied": "respond-async"}
        return answer(record.summary(), 202, headers | place)
    ended = await unless_left(
        request, record.outcome(), left=lambda: record.left("the client left")
    )
    body = {"run": record.id, "outputs": ended.outputs, "usage": ended.usage}
    times = {"seconds": ended.seconds, "waited": record.waited}
    return answer({**body, **times}, headers=headers)


def _summary(deployed: Deployment) -> dict[str, Any]:
    load, limits = deployed.gate.load, deployed.gate.limits
    return {
        "name": deployed.name,
        "version": deployed.graph.version,
        "revision": deployed.revision,
        "description": deployed.graph.description,
        "created": deployed.created,
        "state": "draining" if deployed.draining else "ready",
        "runs": deployed.active,
        "running": load.running,
        "waiting": load.waiting,
        "concurrency": limits.concurrency,
        "queue": limits.queue,
    }


def _inputs(deployed: Deployment) -> dict[str, Any]:
    """The JSON Schema of what an invocation's body holds."""
    return {
        "type": "object",
        "properties": {each.name: each.to_json_schema() for each in deployed.graph.inputs},
        "required": [each.name for each in deployed.graph.inputs if each.default is None],
        "additionalProperties": False,
    }
