"""Every route and verb: without a key, with a wrong one, without the scope, as another tenant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from texts import text

from adjoin.errors import AuthError
from adjoin.runtime.gateway.access import PUBLIC, check_routes, scopes_of
from adjoin.runtime.gateway.keys import SCOPES
from adjoin.runtime.gateway.routes import ROUTERS

ROUTES = [
    (method, route)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute) and route.path not in PUBLIC
    for method in sorted(route.methods)
]
VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def path_of(route: APIRoute) -> str:
    return route.path_format.format(name="mine", id="mine", path="mine", source="mine")


def refusal(answer: httpx2.Response) -> tuple[str, str]:
    """Code and text, in either shape that errors have."""
    body = answer.json()
    error = body.get("error", body)
    return error["code"], error.get("message") or error["detail"]


def test_there_are_routes() -> None:
    assert len(ROUTES) > 10


@pytest.mark.parametrize(
    "path", sorted({path_of(route) for _, route in ROUTES}), ids=lambda path: path
)
def test_without_a_valid_key_every_verb_is_refused(served: Any, client: Any, path: str) -> None:
    for verb in VERBS:
        for headers in ({}, {"Authorization": "Bearer adj_wrong"}):
            bare = {**client.headers, "authorization": "", **headers}
            answer = client.request(verb, path, headers=bare)
            assert answer.status_code == 401, verb
            assert verb == "HEAD" or refusal(answer)[0] == "auth"


@pytest.mark.parametrize(
    ("method", "route"), ROUTES, ids=[f"{method} {route.path}" for method, route in ROUTES]
)
def test_every_route_asks_for_its_scope(served: Any, method: str, route: APIRoute) -> None:
    (scope,) = scopes_of(route)
    others = [each for each in SCOPES if each not in (scope, "admin")]
    with served.client("scopes", *others) as client:
        answer = client.request(method, path_of(route))
        code, message = refusal(answer)
        assert (answer.status_code, code) == (403, "auth")
        assert scope in message


def test_another_tenants_workflows_runs_and_collections_do_not_exist(served: Any) -> None:
    workflows = "/api/v1/workflows"
    with served.client("owner") as owner, served.client("other") as other:
        owner.put(f"{workflows}/mine", content=text("mine"))
        run = owner.post(f"{workflows}/mine/invoke", json={"text": "secret"}).headers["x-run-id"]
        owner.put("/api/v1/collections/mine", json={"embedding": "fake:"})
        added = owner.post(
            "/api/v1/collections/mine/documents",
            json={"documents": [{"text": "a secret", "source": "note"}]},
        )
        assert added.status_code == 200, added.text
        for method, route in ROUTES:
            path = route.path_format.format(name="mine", id=run, path="mine")
            if "{" not in route.path or method == "PUT":
                continue
            answer = other.request(method, path, json={"query": "x"})
            assert answer.status_code == 404, (method, path)
            assert "secret" not in answer.text
        assert other.get("/api/v1/runs").json()["runs"] == []
        assert other.get(workflows).json()["workflows"] == []
        other.put(f"{workflows}/mine", content=text("mine", "same"))
        assert owner.get(f"{workflows}/mine").json()["revision"] == 1


def test_an_app_with_a_route_that_asks_for_nothing_is_not_made(tmp_path: Path) -> None:
    app = FastAPI(docs_url=None, openapi_url=None, redoc_url=None)
    router = APIRouter()

    @router.get("/open")
    async def _open() -> None: ...

    app.include_router(router)
    with pytest.raises(AuthError, match="/open"):
        check_routes(app)
