"""What a client may do to its connection, on the real server: bounded, and others do not notice."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from texts import FLOOD, text

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


def test_1000_idle_streams_stop_nobody(served: Any, client: httpx2.Client, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this machine does not allow so many connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    client.put("/api/v1/workflows/steady", content=text("steady"))
    client.put("/api/v1/workflows/idle", content=text("idle", "wait_for", "path"))
    accepted = client.post(
        "/api/v1/workflows/idle/invoke",
        json={"path": str(tmp_path / "go")},
        headers={"Prefer": "respond-async"},
    )
    head = (
        f"GET {accepted.headers['location']}/events HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {served.key()}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(served.address)) for _ in range(1000)]
        for each in idle:
            each.sendall(head.encode())
        for each in idle:
            each.settimeout(20)
            assert each.recv(100).startswith(b"HTTP/1.1 200")
        for _ in range(20):
            assert client.post(INVOKE, json={"text": "a"}).status_code == 200
        (tmp_path / "go").touch()
        assert cut_after_end(idle[0]), "each of them sees the end"


def cut_after_end(connection: socket.socket) -> bool:
    connection.settimeout(10)
    seen = b""
    while not seen.endswith(b"0\r\n\r\n"):
        seen += connection.recv(65_536)
    return b"RunCompleted" in seen


def test_a_reader_that_takes_nothing_is_cut_off_and_its_run_ends(
    served: Any, client: httpx2.Client
) -> None:
    client.put("/api/v1/workflows/flood", content=FLOOD)
    body = b'{"question": "' + b"a word of some length " * 40 + b'"}'
    head = (
        "POST /api/v1/workflows/flood/invoke HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {served.key()}\r\nAccept: text/event-stream\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )

    def states() -> list[str]:
        runs = client.get("/api/v1/runs").json()["runs"]
        return [run["state"] for run in runs if run["workflow"] == "flood"]

    with socket.socket() as connection:
        # Small buffers, so that little is on its way.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(served.address)
        connection.sendall(head.encode() + body)
        deadline = time.monotonic() + 30
        while states() != ["cancelled"]:
            assert time.monotonic() < deadline, states()
            threading.Event().wait(0.05)


def test_500_connections_that_say_nothing_stop_nobody(served: Any, client: httpx2.Client) -> None:
    client.put("/api/v1/workflows/steady", content=text("steady"))
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            idle = stack.enter_context(socket.create_connection(served.address))
            idle.sendall(b"POST ")
        for _ in range(20):
            assert client.post(INVOKE, json={"text": "a"}).status_code == 200
