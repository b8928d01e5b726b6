"""Workflows over HTTP: deployed, invoked in three ways, replaced, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from texts import ENDLESS, FROM_FILE, text
from waiting import until

API = "/api/v1/workflows"


def put(client: httpx2.Client, body: str, name: str) -> httpx2.Response:
    return client.put(f"{API}/{name}", content=body)


def events(body: str) -> Iterator[dict[str, Any]]:
    for block in body.split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in block.splitlines())
        if "data" in lines:
            event = json.loads(lines["data"])
            assert int(lines["id"]) == event["seq"]
            assert lines["event"] == event["body"]["type"]
            yield event


def test_deploying_twice_changes_nothing_and_another_text_is_a_new_version(
    client: httpx2.Client,
) -> None:
    first = put(client, text("twice"), "twice")
    again = put(client, text("twice"), "twice")
    other = put(client, text("twice", "same"), "twice")
    assert [answer.status_code for answer in (first, again, other)] == [201, 200, 200]
    assert [answer.json()["changed"] for answer in (first, again, other)] == [True, False, True]
    assert [answer.json()["revision"] for answer in (first, again, other)] == [1, 1, 2]
    assert first.json()["version"] == again.json()["version"] != other.json()["version"]


def test_json_is_as_good_as_yaml(client: httpx2.Client) -> None:
    stage = {"uses": "py:gateway_flows:shout", "with": {"text": "${inputs.text}"}}
    spec = {"inputs": {"text": {"type": "string"}}, "stages": {"only": stage}}
    whole = {
        "apiVersion": "adjoin/v1",
        "kind": "Workflow",
        "metadata": {"name": "as_json"},
        "spec": {**spec, "outputs": {"result": "${only}"}},
    }
    answer = client.put(f"{API}/as_json", json=whole)
    assert answer.status_code == 201
    same = put(client, text("as_json"), "as_json").json()
    assert not same["changed"]


def test_a_deployed_workflow_says_what_it_takes(client: httpx2.Client) -> None:
    put(client, text("told", serve="concurrency: 3, queue: 5"), "told")
    told = client.get(f"{API}/told").json()
    assert told["inputs"]["properties"] == {"text": {"type": "string"}}
    assert told["inputs"]["required"] == ["text"]
    assert (told["concurrency"], told["queue"]) == (3, 5)
    names = [each["name"] for each in client.get(API).json()["workflows"]]
    assert "told" in names
    assert client.get(f"{API}/told/explain").json()["stages"]
    picture = client.get(f"{API}/told/graph.svg")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in picture.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("body", "name", "status", "code"),
    [
        (text("wrong", "nothing"), "wrong", 422, "yaml"),
        (text("named"), "other", 400, "input"),
        ("", "empty", 422, "yaml"),
        ("\xff", "latin", 422, "yaml"),
        (text("os").replace("gateway_flows", "os"), "os", 422, "yaml"),
        (ENDLESS.replace("fake:", "/etc"), "endless", 422, "definition"),
        (ENDLESS.replace("fake:", "some/model"), "endless", 422, "definition"),
        (FROM_FILE, "from_file", 422, "yaml"),
    ],
)
def test_what_may_not_be_deployed(
    client: httpx2.Client, body: str, name: str, status: int, code: str
) -> None:
    answer = put(client, body, name)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_wrong_text_has_its_place(client: httpx2.Client) -> None:
    wrong = put(client, text("placed").replace("outputs", "outputz"), "placed").json()
    assert wrong["line"] == 9
    assert "outputz" in wrong["detail"]


def test_invoking_waits_for_the_outputs(client: httpx2.Client) -> None:
    put(client, text("shouts"), "shouts")
    answer = client.post(f"{API}/shouts/invoke", json={"text": "hello"})
    assert answer.status_code == 200
    assert answer.json()["outputs"] == {"result": "HELLO"}
    run = client.get(f"/api/v1/runs/{answer.json()['run']}").json()
    assert (run["state"], run["outputs"]) == ("succeeded", {"result": "HELLO"})
    assert answer.headers["x-run-id"] == run["id"]


def test_events_come_as_they_happen(client: httpx2.Client) -> None:
    put(client, text("evented"), "evented")
    headers = {"Accept": "text/event-stream"}
    answer = client.post(f"{API}/evented/invoke", json={"text": "hello"}, headers=headers)
    found = list(events(answer.text))
    assert [event["seq"] for event in found] == list(range(len(found)))
    assert found[0]["body"]["type"] == "RunStarted"
    assert found[-1]["body"]["outputs"] == {"result": "HELLO"}


def test_an_asynchronous_run_is_followed_and_resumed(client: httpx2.Client, tmp_path: Path) -> None:
    put(client, text("waits", "wait_for", "path"), "waits")
    gate = tmp_path / "go"
    headers = {"Prefer": "respond-async"}
    answer = client.post(f"{API}/waits/invoke", json={"path": str(gate)}, headers=headers)
    assert answer.status_code == 202
    place = answer.headers["location"]
    assert client.get(place).json()["state"] == "running"
    with client.stream("GET", f"{place}/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "id: 0"
    gate.touch()
    resumed = client.get(f"{place}/events", headers={"Last-Event-ID": "0"})
    found = list(events(resumed.text))
    assert found[0]["seq"] == 1
    assert found[-1]["body"]["type"] == "RunCompleted"
    until(lambda: client.get(place).json()["state"] == "succeeded")
    later = client.get(f"{place}/events", headers={"Last-Event-ID": str(found[-2]["seq"])})
    assert [event["seq"] for event in events(later.text)] == [found[-1]["seq"]]
    assert client.get(f"{place}/events", headers={"Last-Event-ID": "x"}).status_code == 400


def test_a_failed_stage_is_named(client: httpx2.Client) -> None:
    put(client, text("fails", "fail"), "fails")
    answer = client.post(f"{API}/fails/invoke", json={"text": "this"})
    problem = answer.json()
    assert answer.status_code == problem["status"] == 500
    assert (problem["code"], problem["stage"], problem["cause"]) == ("stage", "only", "function")
    assert "cannot take this" in problem["detail"]
    run = client.get(f"/api/v1/runs/{problem['run']}").json()
    assert run["state"] == "failed"
    assert run["problem"]["stage"] == "only"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"text": NaN}',
        b'{"text": 1}',
        b'{"other": "x"}',
        b"{}",
        b'{"text": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"text": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
    ],
)
def test_inputs_that_do_not_fit(client: httpx2.Client, body: bytes) -> None:
    put(client, text("strict"), "strict")
    answer = client.post(f"{API}/strict/invoke", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "input")


def test_a_run_is_cut_off_at_its_deadline(client: httpx2.Client, tmp_path: Path) -> None:
    put(client, text("slow", "wait_for", "path"), "slow")
    body = {"path": str(tmp_path / "never")}
    answer = client.post(f"{API}/slow/invoke?timeout=0.3", json=body)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
    assert client.post(f"{API}/slow/invoke?timeout=0", json=body).status_code == 400
    assert client.post(f"{API}/slow/invoke?timeout=nan", json=body).status_code == 400


def test_a_cancelled_run_ends(client: httpx2.Client, tmp_path: Path) -> None:
    put(client, text("cancelled", "wait_for", "path"), "cancelled")
    path = tmp_path / "never"
    place = start(client, "cancelled", path)
    waits = Path(f"{path}.waits")
    until(waits.exists, "the stage began")
    assert client.delete(place).status_code == 202
    until(lambda: client.get(place).json()["state"] == "cancelled")
    until(lambda: not waits.exists(), "the stage has ended, too")
    assert client.delete(place).status_code == 200


def start(client: httpx2.Client, name: str, path: Path) -> str:
    headers = {"Prefer": "respond-async"}
    answer = client.post(f"{API}/{name}/invoke", json={"path": str(path)}, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def test_the_queue_is_bounded_and_says_when_to_come_back(
    client: httpx2.Client, tmp_path: Path
) -> None:
    put(client, text("queued", "wait_for", "path", "concurrency: 1, queue: 1"), "queued")
    running = start(client, "queued", tmp_path / "one")
    waiting = start(client, "queued", tmp_path / "two")
    assert client.get(waiting).json()["state"] == "queued"
    refused = client.post(f"{API}/queued/invoke", json={"path": str(tmp_path / "three")})
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    (tmp_path / "two").touch()
    (tmp_path / "one").touch()
    until(lambda: client.get(waiting).json()["state"] == "succeeded")
    assert client.get(running).json()["state"] == "succeeded"


def test_a_waiting_run_can_be_cancelled_and_gives_its_place_back(
    client: httpx2.Client, tmp_path: Path
) -> None:
    put(client, text("left", "wait_for", "path", "concurrency: 1, queue: 1"), "left")
    start(client, "left", tmp_path / "one")
    waiting = start(client, "left", tmp_path / "two")
    client.delete(waiting)
    until(lambda: client.get(waiting).json()["state"] == "cancelled")
    (only,) = events(client.get(f"{waiting}/events").text)
    assert only["body"]["type"] == "RunCancelled"
    again = start(client, "left", tmp_path / "two")
    for name in ("one", "two"):
        (tmp_path / name).touch()
    until(lambda: client.get(again).json()["state"] == "succeeded")


def test_a_tenant_has_so_many_runs_at_once(served: Any, tmp_path: Path) -> None:
    with served.client("greedy") as client:
        put(client, text("many", "wait_for", "path"), "many")
        places = [start(client, "many", tmp_path / "go") for _ in range(8)]
        refused = client.post(f"{API}/many/invoke", json={"path": str(tmp_path / "go")})
        assert (refused.status_code, refused.json()["code"]) == (429, "quota")
        assert "retry-after" in refused.headers
        with served.client("modest") as other:
            put(other, text("one"), "one")
            assert other.post(f"{API}/one/invoke", json={"text": "a"}).status_code == 200
        (tmp_path / "go").touch()
        until(lambda: {client.get(place).json()["state"] for place in places} == {"succeeded"})


def test_runs_finish_on_the_version_they_began_with(client: httpx2.Client, tmp_path: Path) -> None:
    put(client, text("moving", "wait_for", "path"), "moving")
    old = start(client, "moving", tmp_path / "go")
    put(client, text("moving", "shout"), "moving")
    states = [each for each in client.get(API).json()["workflows"] if each["name"] == "moving"]
    assert [(each["revision"], each["state"]) for each in states] == [(2, "ready"), (1, "draining")]
    new = client.post(f"{API}/moving/invoke", json={"text": "new"})
    assert new.json()["outputs"] == {"result": "NEW"}
    (tmp_path / "go").touch()
    until(lambda: client.get(old).json()["state"] == "succeeded")
    assert client.get(old).json()["outputs"] == {"result": str(tmp_path / "go")}
    listed = [each for each in client.get(API).json()["workflows"] if each["name"] == "moving"]
    assert len(listed) == 1


def test_deleting_drains(client: httpx2.Client, tmp_path: Path) -> None:
    put(client, text("deleted", "wait_for", "path"), "deleted")
    old = start(client, "deleted", tmp_path / "go")
    assert client.delete(f"{API}/deleted").json()["runs"] == 1
    assert client.post(f"{API}/deleted/invoke", json={"path": "x"}).status_code == 404
    assert client.delete(f"{API}/deleted").status_code == 404
    (tmp_path / "go").touch()
    until(lambda: client.get(old).json()["state"] == "succeeded")


def test_ended_runs_are_forgotten_in_their_order(client: httpx2.Client) -> None:
    put(client, text("forgotten"), "forgotten")
    runs = [
        client.post(f"{API}/forgotten/invoke", json={"text": "a"}).headers["x-run-id"]
        for _ in range(55)
    ]
    assert client.get(f"/api/v1/runs/{runs[0]}").status_code == 404
    assert client.get(f"/api/v1/runs/{runs[-1]}").status_code == 200
    newest = client.get("/api/v1/runs?limit=3").json()["runs"]
    assert [run["id"] for run in newest] == runs[:-4:-1]
    assert client.get("/api/v1/runs?limit=0").status_code == 400
