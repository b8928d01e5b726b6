"""Routes whose parameters are read here. FastAPI, which solves dependencies anew for each request,
documents them; it would take longer than a small workflow runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import Response

from adjoin.runtime.gateway.access import Requires


class DirectRoute(APIRoute):
    """Of an ``async`` endpoint that takes the request, the caller, parts of the path as texts, and
    parameters of the query that have defaults. It answers with a response.

    Raises:
        TypeError: the endpoint takes something else; when the route is made.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        dependant = self.dependant
        requires, caller = _caller(dependant)
        query = [(field.alias, field) for field in dependant.query_params]
        endpoint: Any = dependant.call
        asked = str(dependant.request_param_name)

        async def handle(request: Request) -> Response:
            arguments = {asked: request, caller: requires.admit(request), **request.path_params}
            if query and request.scope["query_string"]:
                arguments |= _values(query, request)
            response: Response = await endpoint(**arguments)
            return response

        return handle


def _caller(dependant: Dependant) -> tuple[Requires, str]:
    """What the endpoint demands of its caller, and the name under which it takes him."""
    others = (
        *(dependant.header_params, dependant.cookie_params, dependant.body_params),
        [field for field in dependant.path_params if field.field_info.annotation is not str],
        [field for field in dependant.query_params if field.field_info.is_required()],
    )
    match dependant.dependencies:
        case [each] if isinstance(each.call, Requires) and each.name and not any(others):
            if dependant.request_param_name and dependant.is_coroutine_callable:
                return each.call, each.name
    raise TypeError(f"{dependant.path}: its endpoint takes what only FastAPI can give it")


def _values(query: list[tuple[str, Any]], request: Request) -> dict[str, Any]:
    """The parameters that are there, checked; what is there and not known is ignored.

    Raises:
        RequestValidationError: one is not as it is documented.
    """
    found: dict[str, Any] = {}
    given = request.query_params
    for name, field in query:
        if name in given:
            found[field.name], errors = field.validate(given[name], loc=("query", name))
            if errors:
                raise RequestValidationError(errors)
    return found
