"""uvicorn as `adjoin serve` runs it: what an app cannot do about its connections, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adjoin.errors import InputError
from adjoin.runtime.gateway.app import create_app
from adjoin.settings import Settings

_MAX_HEADER_BYTES = 65_536
_KEEP_ALIVE_S = 30
#: Between saying that the service ends and closing its port: time for balancers and for clients
#: with open connections to notice.
_GRACE_S = 0.5
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with bounds that uvicorn has not: on the time and the size of a request's headers,
    and on how long a client may leave what it was sent unread. Whoever breaks one is cut off."""

    header_timeout_s = 10.0
    send_timeout_s = 60.0

    _header_bytes = 0
    _in_headers = False
    _header_timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(self._header_timer)
        self._stop(self._send_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > _MAX_HEADER_BYTES:
                self.transport.write(_TOO_LARGE)
                self._cut()
                return
        super().data_received(data)
        # Bytes that are no request, such as empty lines, have ended uvicorn's own wait for one.
        cycle: Any = self.cycle
        if self._header_timer is None and (cycle is None or cycle.response_complete):
            self._expect_headers()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self._header_bytes = 0
        if self._header_timer is None:
            self._expect_headers()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop(self._header_timer)
        self._header_timer = None
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._send_timer = self.loop.call_later(self.send_timeout_s, self._cut)

    def resume_writing(self) -> None:
        self._stop(self._send_timer)
        super().resume_writing()

    def _expect_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.header_timeout_s, self._cut)

    def _cut(self) -> None:
        # Not close(): that waits until what is left has been sent.
        self.transport.abort()

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class GracefulServer(uvicorn.Server):
    """Ends by SIGTERM or Ctrl-C: first it says so, then it closes its port, then runs may end. A
    second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, leaving: Callable[[], None]) -> None:
        super().__init__(config)
        self._leaving = leaving
        self._left = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._signalled)
        try:
            yield
        finally:
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(each)

    def _signalled(self) -> None:
        if self._left:
            self.force_exit = self.should_exit = True
            return
        self._left = True
        self._leaving()
        asyncio.get_running_loop().call_later(_GRACE_S, self._close_port)

    def _close_port(self) -> None:
        self.should_exit = True


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """uvicorn with the bounds of the settings."""
    bounds = {
        "header_timeout_s": settings.header_timeout_s,
        "send_timeout_s": settings.send_timeout_s,
    }
    protocol: Any = type("Protocol", (BoundedProtocol,), bounds)
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whom development mode lets in is no claim of a header
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )


def serve(
    settings: Settings,
    sockets: Sequence[socket.socket],
    *,
    files: Sequence[str] = (),
    cluster: str | None = None,
    dev: bool = False,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve on these sockets until a signal.

    Raises:
        AdjoinError: the cluster does not start, or a workflow is wrong.
    """
    app = create_app(settings, files=files, cluster=cluster, dev=dev)
    service = app.state.service
    log = logging.getLogger("uvicorn.error")
    # What keeps the service from starting is raised here; uvicorn would print a traceback of it.
    log.setLevel(logging.CRITICAL)

    def ready() -> None:
        log.setLevel(logging.WARNING)
        started()

    service.on_started = ready
    config = uvicorn_config(app, settings)
    server = GracefulServer(config, leaving=service.leave)
    try:
        server.run(sockets=list(sockets))
    except SystemExit:
        if service.failure is not None:
            raise service.failure from None
        raise


def listen(host: str, port: int, settings: Settings, *, dev: bool) -> socket.socket:
    """A socket that listens, so that a port that is taken is an error before anything starts.

    Raises:
        InputError: the address cannot be had, development mode would be open to others, or clients
            elsewhere would have no name to call it by.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        loopback = ipaddress.ip_address(address[0]).is_loopback
        if dev and not loopback:
            raise InputError(
                "development mode needs no keys, so it is for this machine only",
                where=host,
                hint="use --host 127.0.0.1, or make a key and leave --dev out",
            )
        if not loopback and not settings.allowed_hosts:
            raise InputError(
                "clients elsewhere would have no name to call this service by",
                where=host,
                hint="say which: --set 'allowed_hosts=[\"models.example.org\"]'",
            )
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(1024)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen: {getattr(error, 'strerror', None) or error}",
            where=f"{host}:{port}",
            hint="choose another --host or --port",
        ) from None
    return made
