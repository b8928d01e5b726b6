"""Who calls, and what they may do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from adjoin.errors import AuthError
from adjoin.runtime.gateway import page, reference
from adjoin.runtime.gateway.keys import DEFAULT_TENANT, SCOPES, Key

#: Answered without a key: they say nothing about anyone.
PUBLIC = frozenset({"/livez", "/readyz", "/openapi.json", *page.FILES, *reference.FILES})

#: Who calls in development mode, where there are no keys.
DEVELOPER = Key(id="dev", tenant=DEFAULT_TENANT, scopes=("admin",), label="", created=0.0)

# Only for the OpenAPI document; the door has looked at the header before any route is found.
_bearer = HTTPBearer(auto_error=False, description="An API key: `adjoin keys create`.")


class Principal(msgspec.Struct, frozen=True):
    """Who a request comes from; the tenant is the key's, never the request's."""

    key: Key

    @property
    def tenant(self) -> str:
        return self.key.tenant

    def must(self, scope: str) -> None:
        """Raise :class:`AuthError` when the key lacks a scope."""
        if not self.key.allows(scope):
            raise AuthError(
                f"this key may not do that: it lacks the scope {scope!r}",
                hint="make one that has it: adjoin keys create --scope",
                forbidden=True,
            )


class Requires:
    """A dependency: the caller's key has a scope, else 403. Gives the :class:`Principal`."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    async def __call__(self, request: Request, _: Annotated[object, Depends(_bearer)]) -> Principal:
        return self.admit(request)

    def admit(self, request: Request) -> Principal:
        """Who calls.

        Raises:
            AuthError: the key lacks the scope.
        """
        caller = Principal(request.scope["adjoin.key"])
        caller.must(self.scope)
        return caller


Invoker = Annotated[Principal, Depends(Requires("invoke"))]
Deployer = Annotated[Principal, Depends(Requires("deploy"))]
Librarian = Annotated[Principal, Depends(Requires("collections"))]
Observer = Annotated[Principal, Depends(Requires("observe"))]


def check_routes(app: FastAPI) -> None:
    """Refuse an app with a route that is neither public nor asks for a scope."""
    for route in app.routes:
        path = getattr(route, "path", "")
        if path in PUBLIC or any(True for _ in scopes_of(route)):
            continue
        raise AuthError(f"the route {path!r} asks for no scope", hint="add one, or make it public")


def scopes_of(route: object) -> Iterable[str]:
    """The scopes that a route asks for."""
    if isinstance(route, APIRoute):
        for each in route.dependant.dependencies:
            if isinstance(each.call, Requires):
                assert_known(each.call.scope)
                yield each.call.scope


def assert_known(scope: str) -> None:
    if scope not in SCOPES:
        raise AuthError(f"there is no scope {scope!r}")
