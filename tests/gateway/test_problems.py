"""Errors as answers: one table, and nothing said that is not the caller's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adjoin import errors as e
from adjoin.runtime.gateway.problems import STATUS, Problem, problem_of, respond, status_of


def tree(root: type[e.AdjoinError]) -> Iterator[type[e.AdjoinError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == e.__name__:
            yield from tree(child)


def test_the_table_has_every_error() -> None:
    assert set(STATUS) == set(tree(e.AdjoinError))


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (e.FunctionError("no"), 500),
        (e.InputError("the prompt is too long"), 400),
        (e.NotFound("no such collection"), 404),
        (e.DeadlineExceeded("too slow"), 504),
        (e.EngineError("it crashed"), 503),
        (e.ModelError("refused"), 502),
        (e.AuthError("a function's own"), 500),
    ],
)
def test_a_failed_stage_has_the_status_of_its_cause(cause: e.AdjoinError, status: int) -> None:
    error = e.StageError.of("run-1", "answer", 2, cause)
    problem = problem_of(error)
    assert problem.status == status_of(error) == status
    assert (problem.stage, problem.run, problem.attempt) == ("answer", "run-1", 2)
    assert problem.cause == cause.code


def test_an_error_of_the_service_itself_says_nothing() -> None:
    problem = problem_of(e.AdjoinError("secret", where="/etc/secret", hint="secret", run="r"))
    assert "secret" not in repr(problem)
    assert problem.status == 500


def test_what_may_not_be_done_is_not_what_may_not_be_known() -> None:
    assert status_of(e.AuthError("no key")) == 401
    assert status_of(e.AuthError("no scope", forbidden=True)) == 403


def test_a_refusal_says_when_to_come_back() -> None:
    answer = respond(e.Overloaded("full", retry_after=2.3), "/x")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["content-type"] == "application/problem+json"
    assert bytes(answer.body).startswith(b'{"type":"urn:adjoin:error:overloaded"')


def test_what_is_empty_is_left_out() -> None:
    assert "stage" not in bytes(respond(e.InputError("no")).body).decode()
    assert Problem.__struct_config__.omit_defaults
