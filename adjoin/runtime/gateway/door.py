"""The door: what a request has to pass before any route sees it.

Plain ASGI, under any server: Host and Origin, the key, the size of the body and the time it may
take. What an ASGI server does not pass on (headers that never end, a client that reads nothing) is
:mod:`.server`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adjoin.errors import AdjoinError, AuthError, Overloaded
from adjoin.runtime.gateway.access import DEVELOPER, PUBLIC
from adjoin.runtime.gateway.keys import PREFIX, Key
from adjoin.runtime.gateway.problems import Refused, respond
from adjoin.runtime.gateway.quotas import Quotas
from adjoin.settings import Settings

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: Probes call a service by its address.
_PROBES = frozenset({"/livez", "/readyz"})
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_UPLOAD = "/files"
#: Around a file in a form.
_FORM_BYTES = 65_536

Find = Callable[[str], Awaitable[Key | None]]


class Door:
    """Lets requests in.

    Args:
        find: the key of a text.
        dev: callers on this machine need no key.
        quotas: counts the requests of tenants; None counts none.
        draining: whether the service is ending; then connections are closed after their answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        find: Find,
        quotas: Quotas | None = None,
        dev: bool = False,
        draining: Callable[[], bool] = bool,
    ) -> None:
        self._app = app
        self._settings = settings
        self._find = find
        self._quotas = quotas
        self._dev = dev
        self._draining = draining
        self._hosts = _LOOPBACK | {host.lower() for host in settings.allowed_hosts}
        self._origins = frozenset(origin.lower() for origin in settings.allowed_origins)
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSocket route: closing without accepting is a 403
        body = _Body(self, scope, receive)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *_SAFE, *self._left(scope)]
                if self._draining() or not body.ended:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            body.check_length()
            await self._check(scope)
            await self._app(scope, body.receive, answer)
        except (Refused, AdjoinError) as error:
            await respond(error, scope["path"])(scope, receive, answer)
        finally:
            self._buffered -= body.size

    # -- who --

    async def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        path = scope["path"]
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if path not in _PROBES:
            self._check_host(host)
            self._check_origin(headers, host)
        if path not in PUBLIC:
            scope["adjoin.key"] = key = await self._key(scope, headers)
            if self._quotas is not None:
                self._quotas.request(key.tenant)

    def _left(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        key: Key | None = scope.get("adjoin.key")
        return [] if key is None or self._quotas is None else self._quotas.headers(key.tenant)

    def _check_host(self, host: str) -> None:
        """A page that makes its own name resolve to this machine (DNS rebinding) is turned away."""
        if _hostname(host) not in self._hosts and "*" not in self._hosts:
            raise Refused(421, "this service has another name", "add it to allowed_hosts")

    def _check_origin(self, headers: Mapping[bytes, bytes], host: str) -> None:
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if not origin or origin in self._origins:
            return
        if origin.partition("://")[2] != host:
            raise Refused(403, "pages of this origin may not call", "add it to allowed_origins")

    async def _key(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Key:
        scheme, _, text = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        text = text.strip() if scheme.lower() == "bearer" else ""
        if text and (key := await self._find(text)) is not None:
            return key
        # Clients of OpenAI's API insist on sending some key; one of ours that is void is a mistake.
        if self._dev and _is_here(scope) and not text.startswith(PREFIX):
            return DEVELOPER
        if text:
            raise AuthError("this key is not valid", hint="make one: adjoin keys create")
        raise AuthError(
            "there is no key", hint="send the header Authorization: Bearer, with an API key"
        )

    # -- how much --

    def limit(self, path: str) -> int:
        if path.endswith(_UPLOAD):
            return self._settings.max_file_bytes + _FORM_BYTES
        return self._settings.max_body_bytes

    def hold(self, count: int) -> None:
        if self._buffered + count > self._settings.max_buffered_bytes:
            raise Overloaded("too much is being sent to this service", retry_after=1.0)
        self._buffered += count

    @property
    def body_timeout_s(self) -> float:
        return self._settings.body_timeout_s


def _is_here(scope: Scope) -> bool:
    return (scope.get("client") or ("",))[0] in _LOOPBACK


class _Body:
    """The body of one request: counted while it comes, and only so long."""

    def __init__(self, door: Door, scope: Scope, receive: Receive) -> None:
        self._door = door
        self._receive = receive
        self._limit = door.limit(scope["path"])
        self._declared = next((v for k, v in scope["headers"] if k == b"content-length"), None)
        self._until = asyncio.get_running_loop().time() + door.body_timeout_s
        self.size = 0
        chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
        self.ended = not chunked and self._declared in (None, b"0")

    def check_length(self) -> None:
        if self._declared is not None and (
            not self._declared.isdigit() or int(self._declared[:19]) > self._limit
        ):
            raise self._too_large()

    async def receive(self) -> Message:
        if self.ended:
            return await self._receive()  # whatever comes now says that the client left
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, "the body did not come in time", "send it faster") from None
        count = len(message.get("body", b""))
        if self.size + count > self._limit:
            raise self._too_large()
        self._door.hold(count)
        self.size += count
        self.ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def _too_large(self) -> Refused:
        return Refused(413, f"a body here has at most {self._limit} bytes", "send less")


def _hostname(host: str) -> str:
    """Of ``name:port`` or ``[address]:port``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
