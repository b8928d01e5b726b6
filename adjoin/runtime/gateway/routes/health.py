"""Whether the service lives, whether it takes work, and its figures."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from adjoin.errors import Overloaded
from adjoin.runtime.gateway.access import Observer
from adjoin.runtime.gateway.bodies import answer
from adjoin.runtime.gateway.figures import ask_hosts
from adjoin.runtime.gateway.service import service_of

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> Response:
    """The process answers."""
    return answer({"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """The service takes work: it has started, is not ending, its cluster has workers, and its state
    can be written."""
    service = service_of(request)
    if not service.ready or service.leaving:
        raise Overloaded("the service is starting or ending", retry_after=1.0)
    if service.database.broken is not None:
        raise Overloaded(f"restart it: {service.database.broken}", retry_after=5.0)
    if not service.runtime.driver.cluster.topology.workers:
        raise Overloaded("the cluster has no workers", retry_after=1.0)
    return answer({"status": "ok"})


@router.get("/metrics")
async def metrics(request: Request, _: Observer) -> Response:
    """Figures for Prometheus: of the service, and of the engines, theirs under their own names.
    `adjoin_metrics_left_out_total` counts hosts and replicas that did not say in time."""
    service = service_of(request)
    text = service.metrics.text(await ask_hosts(service.runtime.driver.cluster))
    return Response(text, media_type=CONTENT_TYPE_LATEST)
