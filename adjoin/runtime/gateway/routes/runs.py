"""Runs: what became of them, their events, and their end."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from adjoin.runtime.gateway.access import Invoker
from adjoin.runtime.gateway.bodies import answer
from adjoin.runtime.gateway.direct import DirectRoute
from adjoin.runtime.gateway.service import service_of
from adjoin.runtime.gateway.sse import EventStream, last_event_id

router = APIRouter(prefix="/api/v1/runs", tags=["runs"], route_class=DirectRoute)


@router.get("")
async def list_runs(
    request: Request, caller: Invoker, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """The tenant's runs, the newest first, without their outputs."""
    found = await service_of(request).durable.of(caller.tenant, limit)
    return answer({"runs": [record.summary() for record in found]})


@router.get("/{id}")
async def get_run(request: Request, id: str, caller: Invoker) -> Response:
    """One run; when it has ended, with its outputs or its problem."""
    return answer((await service_of(request).durable.find(caller.tenant, id)).to_dict())


@router.get("/{id}/events")
async def run_events(request: Request, id: str, caller: Invoker) -> Response:
    """A run's events as server-sent events, from the first, or from after `Last-Event-ID`."""
    record = await service_of(request).durable.find(caller.tenant, id)
    return EventStream(record, last_event_id(request))


@router.delete("/{id}")
async def cancel_run(
    request: Request,
    id: str,
    caller: Invoker,
    forget: Annotated[bool, Query(description="Delete what is kept of it.")] = False,
) -> Response:
    """Cancel a run that has not ended; of one that has, this changes nothing. With `forget`, delete
    what is kept of one that has ended: its inputs, its results and its events."""
    durable = service_of(request).durable
    if forget:
        return answer((await durable.forget(caller.tenant, id)).summary())
    record = await durable.find(caller.tenant, id)
    if not record.ended:
        record.cancel("cancelled by the caller")
    return answer(record.summary(), 200 if record.ended else 202)
