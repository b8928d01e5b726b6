"""What the service runs on, and what has been used of it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from adjoin.runtime.gateway.access import Invoker, Observer
from adjoin.runtime.gateway.bodies import answer
from adjoin.runtime.gateway.service import service_of

router = APIRouter(prefix="/api/v1", tags=["cluster"])


@router.get("/cluster")
async def cluster(request: Request, _: Observer) -> Response:
    """Workers, and on each machine the models that are loaded."""
    return answer(await service_of(request).runtime.astatus())


@router.get("/usage")
async def usage(request: Request, caller: Invoker) -> Response:
    """What the tenant's workflows have used since the service started."""
    return answer({"usage": service_of(request).ledger.of(caller.tenant)})
