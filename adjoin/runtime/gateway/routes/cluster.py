"""What the service runs on."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from adjoin.runtime.gateway.access import Observer
from adjoin.runtime.gateway.bodies import answer
from adjoin.runtime.gateway.service import service_of

router = APIRouter(prefix="/api/v1", tags=["cluster"])


@router.get("/cluster")
async def cluster(request: Request, _: Observer) -> Response:
    """Workers, and on each machine the models that are loaded."""
    return answer(await service_of(request).runtime.astatus())
