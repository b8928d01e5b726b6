"""A client that leaves ends its run: in mid-stream, and while it waits for a plain answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from texts import ENDLESS, text

API = "/api/v1/workflows"


def test_one_that_leaves_a_plain_post(served: Any, client: httpx2.Client, tmp_path: Path) -> None:
    client.put(f"{API}/awaited", content=text("awaited", "wait_for", "path"))
    path = tmp_path / "never"
    body = json.dumps({"path": str(path)}).encode()
    head = (
        f"POST {API}/awaited/invoke HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {served.key()}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    waits = Path(f"{path}.waits")
    with socket.create_connection(served.address) as connection:
        connection.sendall(head.encode() + body)
        _until(waits.exists)
    left = time.monotonic()
    _until(lambda: not waits.exists())
    assert time.monotonic() - left < 0.5
    _until(lambda: client.get("/api/v1/runs?limit=1").json()["runs"][0]["state"] == "cancelled")


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_a_generation_ends_with_its_reader(served: Any, client: httpx2.Client, accept: str) -> None:
    client.put(f"{API}/endless", content=ENDLESS)
    body = b'{"question": "why"}'
    head = (
        f"POST {API}/endless/invoke HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
        f"Authorization: Bearer {served.key()}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(served.address) as connection:
        connection.sendall(head.encode() + body)
        _until(lambda: _generating(client) > 0)
    left = time.monotonic()
    _until(lambda: _generating(client) == 0)
    # One step of the fake engine takes 10 ms.
    assert time.monotonic() - left < 0.6


def _generating(client: httpx2.Client) -> int:
    """Requests that run in any replica's engine; -1 while one does not say."""
    hosts = client.get("/api/v1/cluster").json()["hosts"].values()
    counts = [replica["running"] for host in hosts for replica in host["replicas"]]
    return -1 if None in counts else sum(counts)


def _until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)
