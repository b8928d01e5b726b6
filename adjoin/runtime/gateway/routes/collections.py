"""Collections: made, filled, searched, deleted; each tenant has its own."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/v1/collections", tags=["collections"])
