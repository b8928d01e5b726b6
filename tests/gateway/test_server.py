"""What a client may do to its connection, on the real server: bounded, and others do not notice."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import httpx2
from texts import text

INVOKE = "/api/v1/workflows/steady/invoke"


def cut_after(connection: socket.socket) -> float:
    """Seconds until the server has ended this connection."""
    began = time.monotonic()
    connection.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(65_536):
            pass
    return time.monotonic() - began


def test_half_a_header_is_cut_off_at_the_limit(served: Any) -> None:
    limit = served.settings.header_timeout_s
    for sent in (b"", b"GET /livez HTTP/1.1\r\nHost: local", b"\r\n\r\n"):
        with socket.create_connection(served.address) as connection:
            connection.sendall(sent)
            assert cut_after(connection) < limit + 1


def test_half_a_header_after_a_whole_request_is_cut_off_too(served: Any) -> None:
    with socket.create_connection(served.address) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /li")
        assert cut_after(connection) < served.settings.header_timeout_s + 1


def test_endless_headers_are_cut_off_at_their_size(served: Any) -> None:
    with socket.create_connection(served.address) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 10_000_000:
                sent += connection.send(b"X-Endless: " + b"x" * 10_000 + b"\r\n")
        assert sent < 10_000_000


def test_half_a_body_is_answered_and_cut_off(served: Any) -> None:
    head = (
        f"POST {INVOKE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
        f"Authorization: Bearer {served.key()}\r\n\r\n"
    )
    with served.client() as client:
        client.put("/api/v1/workflows/steady", content=text("steady"))
    with socket.create_connection(served.address) as connection:
        connection.sendall(head.encode() + b'{"text":')
        connection.settimeout(10)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 408")
        assert cut_after(connection) < 1


def test_300_megabytes_are_refused_before_they_come(served: Any) -> None:
    head = (
        f"POST {INVOKE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000000\r\n"
        f"Authorization: Bearer {served.key()}\r\n\r\n"
    )
    with socket.create_connection(served.address) as connection:
        connection.sendall(head.encode())
        connection.settimeout(10)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413")


def test_500_connections_that_say_nothing_stop_nobody(served: Any, client: httpx2.Client) -> None:
    client.put("/api/v1/workflows/steady", content=text("steady"))
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            idle = stack.enter_context(socket.create_connection(served.address))
            idle.sendall(b"POST ")
        for _ in range(20):
            assert client.post(INVOKE, json={"text": "a"}).status_code == 200
