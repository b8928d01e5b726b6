"""The ASGI app: routes behind the door, and the service's life."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from adjoin import __version__
from adjoin.runtime.gateway import problems
from adjoin.runtime.gateway.access import check_routes
from adjoin.runtime.gateway.door import Door
from adjoin.runtime.gateway.quotas import RATE_HEADERS
from adjoin.runtime.gateway.routes import ROUTERS
from adjoin.runtime.gateway.service import Service
from adjoin.settings import Settings

_ABOUT = "Workflows of model functions, run next to the state they need."


def create_app(
    settings: Settings | None = None,
    *,
    files: Sequence[str] = (),
    cluster: str | None = None,
    dev: bool = False,
) -> FastAPI:
    """The service as an ASGI app, for any ASGI server: its lifespan starts the runtime on the
    server's loop and drains it. Without arguments it takes the settings in force.

    Args:
        files: workflows to deploy for the default tenant, as ``adjoin run`` names them.
        cluster: a running Dask scheduler; None for an embedded cluster.
        dev: callers on this machine need no key.

    Raises:
        InputError: the settings are refused.
        StateError: the service's state cannot be opened, or is damaged.
    """
    settings = settings or Settings.load()
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await service.start(cluster, files)
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="adjoin",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # it would load Swagger UI from elsewhere; ours is a route
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router, responses=problems.RESPONSES)
    check_routes(app)
    _guard(app, service, dev=dev)
    return app


def _guard(app: FastAPI, service: Service, *, dev: bool) -> None:
    """Put the door around the routes, and the counters around the door."""

    def door(inner: ASGIApp) -> ASGIApp:
        return Door(
            inner,
            settings=service.settings,
            find=service.keys.look_up,
            quotas=service.quotas,
            dev=dev,
            draining=lambda: service.leaving,
        )

    app.add_middleware(door)
    app.add_middleware(service.metrics.counting)
    if origins := service.settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID", "Prefer", "Priority"],
            expose_headers=["X-Run-Id", "Location", "Retry-After", *RATE_HEADERS],
        )
