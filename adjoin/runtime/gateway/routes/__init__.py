"""The routes, one module a family. A family is a router; the app takes them from here."""

from __future__ import annotations

from fastapi import APIRouter

from adjoin.runtime.gateway.routes import (
    cluster,
    collections,
    health,
    openai,
    page,
    runs,
    usage,
    workflows,
)

ROUTERS: tuple[APIRouter, ...] = (
    page.router,
    health.router,
    workflows.router,
    runs.router,
    collections.router,
    cluster.router,
    usage.router,
    openai.router,
)
