"""Errors as the service answers them: problem details (RFC 9457), and one table of status codes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from adjoin import errors as e
from adjoin.runtime.gateway.bodies import answer, schema_of
from adjoin.runtime.gateway.openai.errors import PREFIX as OPENAI_PATHS
from adjoin.runtime.gateway.openai.errors import error_body
from adjoin.runtime.policies.admission import retry_after

MEDIA_TYPE = "application/problem+json"

#: Every error of the tree; a test fails on one that is missing.
STATUS: Mapping[type[e.AdjoinError], int] = {
    e.AdjoinError: 500,
    e.DefinitionError: 422,
    e.GraphError: 422,
    e.YamlError: 422,
    e.PlanError: 503,
    e.InputError: 400,
    e.NotFound: 404,
    e.Conflict: 409,
    e.AuthError: 401,
    e.QuotaExceeded: 429,
    e.Overloaded: 503,
    e.DeadlineExceeded: 504,
    e.Cancelled: 409,
    e.StageError: 500,
    e.EngineError: 503,
    e.ModelError: 502,
    e.StateError: 500,
    e.TransportError: 503,
    e.FunctionError: 500,
}
#: Of a stage that failed, what is the caller's doing keeps its status.
_CALLERS = {e.InputError.code, e.NotFound.code, e.QuotaExceeded.code}
_BY_CODE = {kind.code: status for kind, status in STATUS.items()}

_log = logging.getLogger("adjoin.gateway")


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of an answer that is an error.

    Attributes:
        type: names the kind of error: ``urn:adjoin:error:`` and its code.
        detail: what happened and why; ``hint`` is what to do.
        where: the stage, model or place in the text concerned.
        retryable: whether the same request may succeed later.
        stage, run, attempt, cause: of a stage that failed, with the code of what it failed with.
        line, column: of a text that is wrong, from 1.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str = ""
    hint: str = ""
    where: str = ""
    retryable: bool = False
    stage: str = ""
    run: str = ""
    attempt: int = 0
    cause: str = ""
    line: int = 0
    column: int = 0


class Refused(Exception):
    """A refusal that is HTTP's own, such as a body that is too large."""

    def __init__(self, status: int, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint


def status_of(error: e.AdjoinError) -> int:
    """The HTTP status of an error; of a kind that the table lacks, that of its parent."""
    if isinstance(error, e.AuthError) and error.details.get("forbidden"):
        return HTTPStatus.FORBIDDEN
    if isinstance(error, e.StageError):
        cause = str(error.details.get("cause", ""))
        if cause in _CALLERS or _BY_CODE.get(cause, 0) > HTTPStatus.INTERNAL_SERVER_ERROR:
            return _BY_CODE[cause]
    kind = next(kind for kind in type(error).__mro__ if kind in STATUS)
    return STATUS[kind]


def problem_of(error: e.AdjoinError, instance: str = "") -> Problem:
    """What an error says to a client. An error of adjoin itself says nothing: its log does."""
    status = status_of(error)
    if type(error) is e.AdjoinError:
        error = e.AdjoinError("an error of the service itself", hint="its log says more")
    facts = {key: error.details[key] for key in _FACTS if error.details.get(key)}
    return Problem(
        type=f"urn:adjoin:error:{error.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        code=error.code,
        instance=instance,
        hint=error.hint,
        where=error.where,
        retryable=error.retryable,
        **facts,
    )


_FACTS = ("stage", "run", "attempt", "cause", "line", "column")


def respond(error: e.AdjoinError | Refused, instance: str = "") -> Response:
    """The answer to a request that ended with an error."""
    if isinstance(error, Refused):
        return problem_response(plain_problem(error.status, error.detail, error.hint, instance))
    problem = problem_of(error, instance)
    headers = {}
    if (wait := error.details.get("retry_after")) is not None:
        headers["Retry-After"] = str(retry_after(float(wait)))
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="adjoin"'
    return problem_response(problem, headers)


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    if problem.instance.startswith(OPENAI_PATHS):
        return answer(openai_body(problem), problem.status, dict(headers or {}))
    content = msgspec.json.encode(problem)
    return Response(content, problem.status, headers, media_type=MEDIA_TYPE)


def openai_body(problem: Problem) -> dict[str, Any]:
    """A problem as OpenAI's clients read it."""
    status, code = problem.status, problem.code
    return error_body(status, problem.detail, code, where=problem.where, hint=problem.hint)


def plain_problem(status: int, detail: str, hint: str = "", instance: str = "") -> Problem:
    """What HTTP itself refuses."""
    phrase = HTTPStatus(status).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    return Problem(
        type="about:blank",
        title=phrase,
        status=status,
        detail=detail or phrase,
        code=code,
        hint=hint,
        instance=instance,
    )


#: What every route may answer, for the OpenAPI document.
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "A problem", "content": {MEDIA_TYPE: {"schema": schema_of(Problem)}}}
}


def install(app: FastAPI) -> None:
    """Have every error of the app answered as a problem."""

    @app.exception_handler(e.AdjoinError)
    async def _of_tree(request: Request, error: e.AdjoinError) -> Response:
        if type(error) is e.AdjoinError:
            _log.error("internal error at %s", request.url.path, exc_info=error)
        return respond(error, request.url.path)

    @app.exception_handler(Refused)
    async def _of_door(request: Request, error: Refused) -> Response:
        return respond(error, request.url.path)

    @app.exception_handler(HTTPException)
    async def _of_http(request: Request, error: HTTPException) -> Response:
        problem = plain_problem(error.status_code, str(error.detail), instance=request.url.path)
        return problem_response(problem, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _of_values(request: Request, error: RequestValidationError) -> Response:
        first: dict[str, Any] = next(iter(error.errors()), {})
        place = ".".join(str(part) for part in first.get("loc", ()))
        found = e.InputError(str(first.get("msg", "the request does not fit")), where=place)
        return respond(found, request.url.path)

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> Response:
        _log.error("internal error at %s", request.url.path, exc_info=error)
        return respond(e.AdjoinError(type(error).__name__), request.url.path)
