"""Durable runs over HTTP, in a service that stays up: keys, answers, events, deletion."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text as sql
from texts import ENDLESS, text

from adjoin.errors import StateError
from adjoin.runtime.database import Database

API = "/api/v1/workflows"
RUNS = "/api/v1/runs"
LATER = {"Prefer": "respond-async"}


@pytest.fixture(autouse=True)
def _deployed(client: httpx2.Client) -> None:
    for name, function, argument in (
        ("shouts", "shout", "text"),
        ("counts", "count", "path"),
        ("fails", "fail", "text"),
        ("awaits", "wait_for", "path"),
    ):
        client.put(f"{API}/{name}", content=text(name, function, argument)).raise_for_status()


def keyed(key: str = "") -> dict[str, str]:
    return {"Idempotency-Key": key or str(uuid.uuid4())}


def ended(client: httpx2.Client, id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        found: dict[str, Any] = client.get(f"{RUNS}/{id}").raise_for_status().json()
        if found["state"] not in ("queued", "running"):
            return found
        assert time.monotonic() < deadline, found
        threading.Event().wait(0.01)


def test_ten_clients_with_one_key_have_one_run_and_one_answer(
    client: httpx2.Client, tmp_path: Path
) -> None:
    path, headers = tmp_path / "count", keyed()

    def call(_: int) -> tuple[int, dict[str, Any]]:
        answer = client.post(f"{API}/counts/invoke", json={"path": str(path)}, headers=headers)
        return answer.status_code, answer.json()

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(call, range(10)))
    # Of the tenant's runs there are eight at once in these tests: whoever is too many is told so.
    assert {status for status, _ in answers} <= {200, 429}
    given = [body for status, body in answers if status == 200]
    assert len(given) >= 8
    assert len({body["run"] for body in given}) == 1
    assert all(body["outputs"] == {"result": "1"} for body in given)
    assert path.read_text() == "x", "one execution"
    again = client.post(f"{API}/counts/invoke", json={"path": str(path)}, headers=headers)
    assert again.json()["run"] == given[0]["run"]
    assert path.read_text() == "x"


def test_a_key_for_another_request_is_a_conflict_that_is_not_to_be_sent_again(
    client: httpx2.Client,
) -> None:
    headers = keyed()
    client.post(f"{API}/shouts/invoke", json={"text": "a"}, headers=headers).raise_for_status()
    for path, body in (("shouts", {"text": "b"}), ("fails", {"text": "a"})):
        other = client.post(f"{API}/{path}/invoke", json=body, headers=headers)
        assert other.status_code == 409
        assert "retryable" not in other.json()
        assert "new key" in other.json()["hint"]


def test_keys_belong_to_their_tenant(served: Any, client: httpx2.Client) -> None:
    headers = keyed()
    mine = client.post(f"{API}/shouts/invoke", json={"text": "a"}, headers=headers).json()
    with served.client("other") as other:
        other.put(f"{API}/shouts", content=text("shouts"))
        theirs = other.post(f"{API}/shouts/invoke", json={"text": "b"}, headers=headers).json()
        assert theirs["outputs"] == {"result": "B"}
        assert theirs["run"] != mine["run"]
        assert other.get(f"{RUNS}/{mine['run']}").status_code == 404


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "\x01"])
def test_a_key_that_is_none_is_refused(client: httpx2.Client, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = client.post(f"{API}/shouts/invoke", json={"text": "a"}, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 400


def test_a_failure_is_the_answer_to_its_key(client: httpx2.Client) -> None:
    headers = keyed()
    first, second = (
        client.post(f"{API}/fails/invoke", json={"text": "a"}, headers=headers) for _ in range(2)
    )
    assert first.status_code == second.status_code == 500
    assert first.json()["run"] == second.json()["run"]


def test_a_run_that_was_refused_does_not_use_its_key_up(client: httpx2.Client) -> None:
    headers = keyed()
    assert client.post(f"{API}/shouts/invoke", json={}, headers=headers).status_code == 400
    again = client.post(f"{API}/shouts/invoke", json={"text": "a"}, headers=headers)
    assert again.status_code == 200


def test_a_client_that_leaves_does_not_end_a_durable_run(
    client: httpx2.Client, tmp_path: Path
) -> None:
    go, headers = tmp_path / "go", keyed()
    with pytest.raises(httpx2.ReadTimeout):
        client.post(f"{API}/awaits/invoke", json={"path": str(go)}, headers=headers, timeout=0.5)
    go.touch()
    answer = client.post(f"{API}/awaits/invoke", json={"path": str(go)}, headers=headers)
    assert answer.json()["outputs"] == {"result": str(go)}


def test_events_of_an_ended_run_come_from_the_journal(client: httpx2.Client) -> None:
    answer = client.post(f"{API}/shouts/invoke", json={"text": "a"}, headers=LATER)
    assert answer.status_code == 202
    id = answer.json()["id"]
    found = ended(client, id)
    assert found["state"] == "succeeded"
    assert found["outputs"] == {"result": "A"}
    lines = client.get(f"{RUNS}/{id}/events").text
    numbers = [int(line[4:]) for line in lines.splitlines() if line.startswith("id: ")]
    assert numbers == list(range(len(numbers)))
    assert "event: RunCompleted" in lines
    rest = client.get(f"{RUNS}/{id}/events", headers={"Last-Event-ID": str(numbers[-2])}).text
    assert [line for line in rest.splitlines() if line.startswith("id: ")] == [f"id: {numbers[-1]}"]


def test_a_stream_with_a_key_is_read_again(client: httpx2.Client) -> None:
    headers = {**keyed(), "Accept": "text/event-stream"}
    first, second = (
        client.post(f"{API}/shouts/invoke", json={"text": "a"}, headers=headers).text
        for _ in range(2)
    )
    assert first == second
    assert "RunCompleted" in first


def test_openais_api_takes_keys(client: httpx2.Client) -> None:
    body = {"model": "fake:", "messages": [{"role": "user", "content": "hello"}]}
    headers = keyed()
    first, second = (
        client.post("/v1/chat/completions", json=body, headers=headers).json() for _ in range(2)
    )
    assert first == second
    streamed = [
        client.post("/v1/chat/completions", json={**body, "stream": True}, headers=key).text
        for key in [keyed()] * 2
    ]
    assert streamed[0] == streamed[1]
    vectors, again = (
        client.post("/v1/embeddings", json={"model": "fake:", "input": "a"}, headers=key).json()
        for key in [keyed()] * 2
    )
    assert vectors == again


def test_a_run_that_is_out_of_time_is_expired(client: httpx2.Client, tmp_path: Path) -> None:
    body = {"path": str(tmp_path / "never")}
    answer = client.post(f"{API}/awaits/invoke?timeout=0.3", json=body, headers=LATER)
    found = ended(client, answer.json()["id"])
    assert found["state"] == "expired"
    assert found["problem"]["status"] == 504


def test_a_durable_run_can_be_cancelled(client: httpx2.Client) -> None:
    client.put(f"{API}/endless", content=ENDLESS)
    id = client.post(f"{API}/endless/invoke", json={"question": "a"}, headers=LATER).json()["id"]
    assert client.delete(f"{RUNS}/{id}?forget=true").status_code == 409
    client.delete(f"{RUNS}/{id}").raise_for_status()
    assert ended(client, id)["state"] == "cancelled"


def test_what_is_forgotten_is_gone(client: httpx2.Client) -> None:
    headers = {**LATER, **keyed()}
    body = {"text": "secret"}
    id = client.post(f"{API}/shouts/invoke", json=body, headers=headers).json()["id"]
    ended(client, id)
    client.delete(f"{RUNS}/{id}?forget=true").raise_for_status()
    assert client.get(f"{RUNS}/{id}").status_code == 404
    another = client.post(f"{API}/shouts/invoke", json=body, headers=headers).json()["id"]
    assert another != id, "its key is free again"


def test_a_full_disk_refuses_what_has_to_be_kept_and_loses_nothing(
    served: Any, client: httpx2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    waiting = client.post(f"{API}/awaits/invoke", json={"path": str(go)}, headers=LATER).json()
    database: Database = served.app.state.service.database
    write = database.write

    async def full(work: Any) -> Any:
        raise StateError("the service's state cannot be written: database or disk is full")

    monkeypatch.setattr(database, "write", full)
    refused = client.post(f"{API}/shouts/invoke", json={"text": "a"}, headers=LATER)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    assert client.post(f"{API}/shouts/invoke", json={"text": "a"}).status_code == 200
    go.touch()
    threading.Event().wait(0.3)
    # Its end cannot be written, so nobody is told that it has ended.
    assert client.get(f"{RUNS}/{waiting['id']}").json()["state"] == "running"
    monkeypatch.setattr(database, "write", write)
    assert ended(client, waiting["id"])["state"] == "succeeded"


def test_an_ended_run_keeps_only_what_it_returned(served: Any, client: httpx2.Client) -> None:
    answer = client.post(f"{API}/shouts/invoke", json={"text": "a"}, headers=LATER)
    ended(client, answer.json()["id"])
    database: Database = served.app.state.service.database
    query = sql("SELECT count(*) FROM recorded WHERE run = :run")
    id = answer.json()["id"]
    assert database.read_now(lambda c: c.execute(query, {"run": id}).scalar()) == 1
