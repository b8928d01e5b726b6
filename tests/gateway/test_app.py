"""The app as an ASGI callable, without a server and before it has started."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from adjoin import Settings
from adjoin.errors import StateError
from adjoin.runtime.gateway import create_app


def caller(settings: Settings) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=create_app(settings))
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost")


async def preflight(settings: Settings, origin: str) -> httpx2.Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    async with caller(settings) as client:
        return await client.options("/api/v1/workflows/x", headers=headers)


async def test_a_page_that_is_allowed_may_ask_before_it_calls(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, allowed_origins=("https://app.example.org",))
    allowed = await preflight(settings, "https://app.example.org")
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.org"
    refused = await preflight(settings, "https://evil.example")
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


async def test_nobody_may_where_no_origin_is_allowed(tmp_path: Path) -> None:
    answer = await preflight(Settings(home=tmp_path), "https://app.example.org")
    assert answer.status_code == 403


async def test_it_lives_before_it_is_ready(tmp_path: Path) -> None:
    async with caller(Settings(home=tmp_path)) as client:
        assert (await client.get("/livez")).status_code == 200
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"


def test_a_home_that_cannot_be_used_is_an_error_of_state(tmp_path: Path) -> None:
    (tmp_path / "gateway").write_text("a file")
    with pytest.raises(StateError):
        create_app(Settings(home=tmp_path))
