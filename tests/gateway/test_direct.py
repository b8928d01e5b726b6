"""Routes that read their parameters themselves are what FastAPI's would be, to callers."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from adjoin.runtime.gateway import problems
from adjoin.runtime.gateway.access import Invoker
from adjoin.runtime.gateway.direct import DirectRoute
from adjoin.runtime.gateway.keys import Key


def app_of(kind: type[APIRoute], *scopes: str) -> FastAPI:
    app = FastAPI()
    problems.install(app)
    router = APIRouter(prefix="/w", route_class=kind)

    @router.post("/{name}")
    async def endpoint(
        request: Request,
        name: str,
        caller: Invoker,
        timeout: Annotated[float | None, Query(gt=0, le=10, description="Seconds.")] = None,
        count: Annotated[int, Query(ge=1)] = 7,
        forget: Annotated[bool, Query(alias="drop")] = False,
    ) -> Response:
        found = [request.method, name, caller.tenant, timeout, count, forget]
        return JSONResponse(found)

    app.include_router(router)
    key = Key(id="k", tenant="t", scopes=scopes or ("invoke",), label="", created=0.0)

    def keyed(inner: ASGIApp) -> ASGIApp:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            await inner({**scope, "adjoin.key": key}, receive, send)

        return call

    app.add_middleware(keyed)
    return app


QUERIES = (
    *("", "timeout=2.5&count=3&drop=true", "count=4&count=5", "drop=1", "unknown=1&timeout=1"),
    *("timeout=0", "timeout=11", "timeout=soon", "timeout=", "count=1.5", "count=0", "drop=maybe"),
    *("timeout=nan", "timeout=inf", "timeout=%2B1", "forget=true", "count=%00", "drop"),
)


@pytest.mark.parametrize("query", QUERIES)
def test_it_answers_as_fastapi_does(query: str) -> None:
    answers = []
    for kind in (APIRoute, DirectRoute):
        with TestClient(app_of(kind)) as client:
            answer = client.post(f"/w/a%20b?{query}")
            answers.append((answer.status_code, answer.json()))
    assert answers[0] == answers[1]


def test_a_key_without_the_scope_is_refused() -> None:
    with TestClient(app_of(DirectRoute, "observe")) as client:
        assert client.post("/w/a").status_code == 403


def test_it_is_documented_as_fastapi_does() -> None:
    assert app_of(DirectRoute).openapi() == app_of(APIRoute).openapi()


class Body(BaseModel):
    x: int


async def with_body(request: Request, caller: Invoker, body: Body) -> None: ...
async def without_default(request: Request, caller: Invoker, q: str) -> None: ...
async def with_number(request: Request, caller: Invoker, number: int) -> None: ...
async def for_anyone(request: Request) -> None: ...
async def without_request(caller: Invoker) -> None: ...
def in_a_thread(request: Request, caller: Invoker) -> None: ...


@pytest.mark.parametrize(
    "endpoint",
    [with_body, without_default, with_number, for_anyone, without_request, in_a_thread],
)
def test_what_only_fastapi_can_give_is_refused_when_the_route_is_made(endpoint: Any) -> None:
    with pytest.raises(TypeError, match="only FastAPI"):
        DirectRoute("/{number}", endpoint, response_model=None)
