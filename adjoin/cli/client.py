"""A running service, as the command line talks to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from adjoin.errors import AdjoinError, InputError, TransportError, from_wire

if TYPE_CHECKING:
    import httpx2

_DEFAULT = "http://127.0.0.1:8000"
_CONNECT_S = 10.0
_FACTS = ("stage", "run", "attempt", "cause", "line", "column")

Url = Annotated[
    str | None,
    typer.Option(
        envvar="ADJOIN_URL",
        metavar="URL",
        help=f"The service.  [default: {_DEFAULT}]",
        show_default=False,
    ),
]


class Remote:
    """Requests to a service, with the key from ``ADJOIN_API_KEY``; errors are the tree's own.

    Raises:
        InputError: the URL is none.
        TransportError: nothing answers there.
        AdjoinError: what the service refused, or what the run failed with.
    """

    def __init__(self, url: str | None) -> None:
        import httpx2

        key = os.environ.get("ADJOIN_API_KEY", "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url = (url or _DEFAULT).rstrip("/")
        try:
            # A run takes as long as it takes; only connecting is a matter of seconds.
            timeout = httpx2.Timeout(None, connect=_CONNECT_S)
            self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout)
        except (httpx2.InvalidURL, ValueError) as error:
            raise InputError(f"not a URL: {error}", where=self.url[:200]) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The answer's JSON."""
        with self._failing():
            answer = self._http.request(method, path, **options)
            return _checked(answer).json()

    def text(self, method: str, path: str, *, kind: str, **options: Any) -> str:
        """The answer as text of this media type."""
        with self._failing():
            answer = self._http.request(method, path, headers={"Accept": kind}, **options)
            return str(_checked(answer).text)

    def events(self, method: str, path: str, **options: Any) -> Iterator[dict[str, Any]]:
        """A run's events as they come."""
        with (
            self._failing(),
            self._http.stream(
                method, path, headers={"Accept": "text/event-stream"}, **options
            ) as answer,
        ):
            if answer.is_error:
                answer.read()
            for line in _checked(answer).iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    @contextmanager
    def _failing(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except httpx2.UnsupportedProtocol:
            raise InputError("not a URL", where=self.url, hint="write http://host:port") from None
        except (httpx2.HTTPError, ValueError) as error:
            raise TransportError(
                f"the service does not answer as one: {error}",
                where=self.url,
                hint="is it running? adjoin serve starts one; ADJOIN_URL names it",
            ) from None


def _checked(answer: httpx2.Response) -> httpx2.Response:
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
        raise error_of(problem)
    except (ValueError, KeyError, TypeError):
        raise TransportError(
            f"the service answered {answer.status_code}", where=str(answer.url)
        ) from None


def error_of(problem: dict[str, Any]) -> AdjoinError:
    """The error that a problem's body tells of."""
    facts = {key: problem[key] for key in _FACTS if key in problem}
    plain = {key: problem.get(key, "") for key in ("where", "hint")}
    return from_wire(
        {"code": problem["code"], "message": problem["detail"], **plain, "details": facts}
    )
