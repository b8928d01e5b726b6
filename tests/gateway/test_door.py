"""The door, as plain ASGI: no server, no cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from adjoin import Settings
from adjoin.runtime.gateway.door import Door
from adjoin.runtime.gateway.keys import Key

KEY = Key(id="k", tenant="acme", scopes=("invoke",), label="", created=0.0)
AUTH = (b"authorization", b"Bearer good")
SETTINGS = Settings(
    allowed_hosts=("models.example.org",),
    allowed_origins=("https://app.example.org",),
    max_body_bytes=100,
    max_file_bytes=200,
    max_buffered_bytes=150,
    body_timeout_s=0.05,
)


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that reads its body and says who called and how much came."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    key: Key | None = scope.get("adjoin.key")
    await PlainTextResponse(f"{key and key.tenant} {size}")(scope, receive, send)


async def knock(
    *headers: tuple[bytes, bytes],
    path: str = "/api/v1/runs",
    body: Iterable[bytes] = (),
    app: Any = reads,
    client: str = "127.0.0.1",
    ends: bool = True,
    **options: Any,
) -> tuple[int, dict[bytes, bytes], bytes]:
    """One request; the body comes in these chunks, and then never ends if so wished."""

    async def find(text: str) -> Key | None:
        return KEY if text == "good" else None

    door = Door(app, settings=SETTINGS, find=find, **options)
    named = dict(headers)
    named.setdefault(b"host", b"localhost:8000")
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": list(named.items()),
        "client": (client, 1),
    }
    chunks = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in body]
    if ends:
        chunks.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Message] = []

    async def receive() -> Message:
        return chunks.pop(0) if chunks else await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)

    await door(scope, receive, send)
    assert door._buffered == 0, "what was counted is given back"
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def test_a_key_lets_in_and_says_whose_it_is() -> None:
    assert (await knock(AUTH))[::2] == (200, b"acme 0")


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer ", b"Bearer bad", b"Basic good", b"good", b"Bearer \xff"]
)
async def test_what_is_no_key_does_not(value: bytes) -> None:
    status, headers, body = await knock((b"authorization", value))
    assert (status, json.loads(body)["code"]) == (401, "auth")
    assert headers[b"www-authenticate"].startswith(b"Bearer")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs", "/openapi.json", "/"])
async def test_what_is_public_needs_no_key(path: str) -> None:
    assert (await knock(path=path))[0] == 200


@pytest.mark.parametrize(
    "path", ["/livez/", "/LIVEZ", "/docs/x", "//livez", "/metrics", "/page", "/page/"]
)
async def test_what_only_looks_public_is_not(path: str) -> None:
    assert (await knock(path=path))[0] == 401


async def test_development_mode_is_for_this_machine() -> None:
    assert (await knock(dev=True))[::2] == (200, b"default 0")
    assert (await knock(dev=True, client="::1"))[0] == 200
    assert (await knock(dev=True, client="10.0.0.1"))[0] == 401
    assert (await knock((b"authorization", b"Bearer unused"), dev=True))[0] == 200
    assert (await knock((b"authorization", b"Bearer adj_bad"), dev=True))[0] == 401
    unused = (b"authorization", b"Bearer unused")
    assert (await knock(unused, dev=True, client="10.0.0.1"))[0] == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost:8000", 200),
        (b"127.0.0.1", 200),
        (b"[::1]:8000", 200),
        (b"Models.Example.org", 200),
        (b"evil.example", 421),
        (b"", 421),
        (b"localhost.evil.example", 421),
    ],
)
async def test_a_rebound_name_is_turned_away(host: bytes, status: int) -> None:
    assert (await knock(AUTH, (b"host", host)))[0] == status
    probe = await knock((b"host", host), path="/livez")
    assert probe[0] == 200, "probes call by address"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (b"http://localhost:8000", 200),
        (b"https://app.example.org", 200),
        (b"http://localhost:9000", 403),
        (b"https://evil.example", 403),
        (b"null", 403),
        (b"http://[", 403),
    ],
)
async def test_pages_of_other_sites_may_not_call(origin: bytes, status: int) -> None:
    assert (await knock(AUTH, (b"origin", origin)))[0] == status


async def test_a_declared_size_is_believed_before_anything_is_read() -> None:
    status, headers, _ = await knock(AUTH, (b"content-length", b"300000000"), ends=False)
    assert status == 413
    assert headers[b"connection"] == b"close"


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"0x10", b"9" * 400])
async def test_a_size_that_is_none_is_refused(length: bytes) -> None:
    assert (await knock(AUTH, (b"content-length", length), ends=False))[0] == 413


async def test_a_body_in_chunks_is_counted() -> None:
    chunked = (b"transfer-encoding", b"chunked")
    assert (await knock(AUTH, chunked, body=[b"x" * 50] * 2))[::2] == (200, b"acme 100")
    status, headers, _ = await knock(AUTH, chunked, body=[b"x" * 50] * 3)
    assert status == 413
    assert headers[b"connection"] == b"close"


async def test_a_file_may_be_larger_but_all_bodies_are_bounded_together() -> None:
    chunked, path = (b"transfer-encoding", b"chunked"), "/api/v1/collections/c/files"
    assert (await knock(AUTH, chunked, path=path, body=[b"x" * 120]))[0] == 200
    status, headers, _ = await knock(AUTH, chunked, path=path, body=[b"x" * 160])
    assert status == 503
    assert headers[b"retry-after"] == b"1"


async def test_a_body_that_does_not_end_is_not_waited_for() -> None:
    chunked = (b"transfer-encoding", b"chunked")
    status, headers, _ = await knock(AUTH, chunked, body=[b"x"], ends=False)
    assert status == 408
    assert headers[b"connection"] == b"close"


async def test_waiting_for_an_answer_is_not_waiting_for_a_body() -> None:
    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        gone = asyncio.ensure_future(receive())
        await asyncio.sleep(2 * SETTINGS.body_timeout_s)
        assert not gone.done()
        gone.cancel()
        await PlainTextResponse("late")(scope, receive, send)

    assert (await knock(AUTH, app=waits))[::2] == (200, b"late")


async def test_when_the_service_ends_connections_are_not_kept() -> None:
    _, headers, _ = await knock(AUTH, draining=lambda: True)
    assert headers[b"connection"] == b"close"
    assert b"connection" not in (await knock(AUTH))[1]
