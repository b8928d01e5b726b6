"""Requests made to hurt: bounded where they enter, and others do not notice."""

from __future__ import annotations

import contextlib
import gzip
import socket
from typing import Any

import httpx2
import pytest
from texts import text

CHAT = "/v1/chat/completions"
INVOKE = "/api/v1/workflows/steady/invoke"


def test_a_gzip_bomb_is_not_unpacked(served: Any, client: httpx2.Client) -> None:
    client.put("/api/v1/workflows/steady", content=text("steady"))
    bomb = gzip.compress(b'{"text": "' + b"a" * 300_000_000 + b'"}', 9)
    assert len(bomb) < served.settings.max_body_bytes
    answer = client.post(INVOKE, content=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 400, "what is no JSON is refused as it came"


def test_chunks_without_end_are_cut_off_at_the_size_of_a_body(served: Any) -> None:
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Bearer {served.key()}\r\n\r\n"
    )
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with socket.create_connection(served.address) as connection:
        connection.settimeout(10)
        connection.sendall(head.encode())
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 20 * served.settings.max_body_bytes:
                sent += connection.send(chunk)
        assert sent < 20 * served.settings.max_body_bytes


@pytest.mark.parametrize(
    "fields",
    [
        b'"n": 65',
        b'"n": 0',
        b'"n": 9223372036854775807',
        b'"max_tokens": 0',
        b'"max_tokens": -1',
        b'"max_tokens": 8193',
        b'"max_tokens": 99999999999999999999999',
        b'"temperature": NaN',
        b'"temperature": Infinity',
        b'"temperature": 1e999',
        b'"temperature": -0.1',
        b'"top_p": NaN',
        b'"top_p": 1.01',
        b'"stop": ' + b"[" + b",".join([b'"a"'] * 1000) + b"]",
        b'"stop": [""]',
        b'"logit_bias": {"1": 100}',
        b'"seed": 1e400',
    ],
    ids=lambda fields: fields[:30].decode(),
)
def test_numbers_are_bounded_before_any_engine_sees_them(
    client: httpx2.Client, fields: bytes
) -> None:
    body = b'{"model": "fake:", "messages": [{"role": "user", "content": "a b"}], ' + fields + b"}"
    answer = client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
