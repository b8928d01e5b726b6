"""The HTTP service: workflows, runs and collections behind keys, as one ASGI app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adjoin.runtime.gateway.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    # FastAPI is imported when an app is made: keys and settings need none of it.
    if name == "create_app":
        from adjoin.runtime.gateway.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
