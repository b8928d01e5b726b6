"""What a tenant may use, over HTTP: refused at the door, before anything of a request is read."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from texts import text

CHAT = "/v1/chat/completions"


def chat(client: httpx2.Client, words: int, **fields: Any) -> httpx2.Response:
    messages = [{"role": "user", "content": " ".join(["sea"] * words)}]
    return client.post(CHAT, json={"model": "fake:", "messages": messages, **fields})


def test_requests_a_minute(served: Any) -> None:
    with served.client("few-requests") as few, served.client("another") as other:
        answers = [few.get("/api/v1/runs") for _ in range(5)]
        assert [each.status_code for each in answers] == [200] * 5
        left = [each.headers["x-ratelimit-remaining-requests"] for each in answers]
        assert left == ["4", "3", "2", "1", "0"]
        assert answers[0].headers["x-ratelimit-limit-requests"] == "5"
        refused = few.post(CHAT, content=b"{ no JSON")
        assert refused.status_code == 429, "told so before its body is looked at"
        assert 1 <= int(refused.headers["retry-after"]) <= 12
        assert refused.json()["error"]["code"] == "quota"
        assert 0 < float(refused.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
        assert other.get("/api/v1/runs").status_code == 200
        assert "x-ratelimit-limit-requests" not in other.get("/api/v1/runs").headers


def test_tokens_a_minute_are_reserved_and_what_was_not_used_comes_back(served: Any) -> None:
    with served.client("few-tokens") as few:
        never = chat(few, 10, max_tokens=500)
        assert never.status_code == 429
        assert "retry-after" not in never.headers, "waiting does not help"
        assert chat(few, 10, max_tokens=80).json()["usage"]["total_tokens"] == 20
        # 90 were reserved and 20 taken; the same again fits only since the others came back.
        assert chat(few, 10, max_tokens=50).status_code == 200
        refused = chat(few, 10, max_tokens=80)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert 55 <= int(refused.headers["x-ratelimit-remaining-tokens"]) <= 75


def test_a_run_too_many_is_refused_before_its_body_is_read(served: Any, tmp_path: Path) -> None:
    with served.client("one-run") as one:
        one.put("/api/v1/workflows/hold", content=text("hold", "wait_for", "path"))
        invoke = "/api/v1/workflows/hold/invoke"
        later = {"Prefer": "respond-async"}
        first = one.post(invoke, json={"path": str(tmp_path / "go")}, headers=later)
        assert first.status_code == 202
        for path in (invoke, CHAT, "/v1/completions", "/v1/embeddings"):
            assert one.post(path, content=b"{ no JSON").status_code == 429, path
        (tmp_path / "go").touch()
        place = first.headers["location"]
        deadline = time.monotonic() + 30
        while one.get(place).json()["state"] in ("queued", "running"):
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
        assert one.post(invoke, content=b"{ no JSON").status_code == 400, "its place is free again"
        done = one.post(invoke, json={"path": str(tmp_path / "go")})
        assert done.status_code == 200, done.text
        assert done.json()["waited"] >= 0


def test_the_size_of_a_body_comes_before_the_key(served: Any) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000000\r\n\r\n"
    with socket.create_connection(served.address) as connection:
        connection.sendall(head.encode())
        connection.settimeout(10)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("priority", ["u=0", "u=7, i", "u=99", "\xff", "u=1;x", "i, u=5"])
def test_a_priority_is_taken_or_passed_over(served: Any, priority: str) -> None:
    with served.client("hasty") as client:
        answer = client.get("/api/v1/runs", headers={"Priority": priority.encode("latin-1")})
        assert answer.status_code == 200
        messages = [{"role": "user", "content": "a b"}]
        body = {"model": "fake:", "messages": messages}
        asked = client.post(CHAT, json=body, headers={"Priority": priority.encode("latin-1")})
        assert asked.status_code == 200
