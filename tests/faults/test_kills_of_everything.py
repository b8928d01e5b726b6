"""P1-P3: what was accepted ends once, with its result, whatever is killed; on both databases.

`python tests/faults/storm.py --rounds 300` is the long form.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from durable_flows import TEXT, oracle
from history import ENDS, Call, History, events_are_right
from pydantic import SecretStr
from sqlalchemy import update
from storm import Service, Storm, storm

from adjoin import Settings
from adjoin.runtime.database import Database, database_url, open_database
from adjoin.runtime.database.tables import runs

TALKS = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: talks}
spec:
  inputs: {question: {type: string}}
  models:
    slow: {source: "fake:", args: {words: 100000, interval_s: 0.02}}
  stages:
    answer: {uses: generate, with: {prompt: "${inputs.question}", model: slow, max_tokens: 8000}}
  outputs: {answer: "${answer}"}
"""
pytestmark = pytest.mark.timeout(180)
_STORMS = int(os.environ.get("ADJOIN_TEST_KILLS", "2"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    made.start()
    yield made
    made.end()


@pytest.fixture
def waiting(service: Service) -> Storm:
    """Four runs that wait for a file in their fourth stage, with three stages recorded."""
    made = Storm(service, seed=1, runs=4, gone=False)
    made.deploy()
    for thread in made.send_all():
        thread.join()
    _until(lambda: made.log.exists() and len(made.log.read_text().splitlines()) == 12)
    _until(lambda: _count(service, "recorded") == 12)
    return made


def _until(holds: object) -> None:
    deadline = time.monotonic() + 40
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _state(service: Service) -> Database:
    url = SecretStr(service.database)
    return open_database(database_url(Settings(home=service.home, database_url=url)))


def _count(service: Service, table: str) -> int:
    database = _state(service)
    query = f"SELECT count(*) FROM {table}"
    try:
        return int(database.read_now(lambda c: c.exec_driver_sql(query).scalar()) or 0)
    finally:
        database.close()


def test_nothing_accepted_is_lost_in_a_storm(tmp_path: Path, state_url: str) -> None:
    url = "" if state_url.startswith("sqlite") else state_url
    played, problems = storm(
        tmp_path, rounds=_STORMS, runs=25, seed=7, what=["gateway", "all"], url=url
    )
    assert problems == []
    assert len({call.run for call in played.history.calls if call.run}) >= 25 * _STORMS


def test_what_was_recorded_is_not_done_again(service: Service, waiting: Storm) -> None:
    service.kill("all")
    service.start()
    waiting.go.touch()
    waiting.settle()
    assert waiting.history.problems() == []
    assert len(waiting.log.read_text().splitlines()) == 12, "no stage was done twice"
    with service.client() as client:
        run = waiting.history.calls[0].run
        text = client.get(f"/api/v1/runs/{run}/events").text
    assert '"attempt":101' in text.replace(" ", ""), "attempts count on in a range of their own"
    assert "event: RunResumed" in text


def test_a_tenants_day_goes_on_after_everything_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADJOIN_TENANTS", '{"*": {"tokens_per_day": 60}}')
    service = Service(tmp_path)
    service.start()
    asked = {"model": "fake:", "messages": [{"role": "user", "content": "a b"}], "max_tokens": 50}
    try:
        with service.client() as client:
            answer = client.post("/v1/chat/completions", json=asked).raise_for_status().json()
        used = answer["usage"]["total_tokens"]
        assert used > 1
        service.kill("all")
        service.start()
        asked["max_tokens"] = 60 - used  # with the prompt one token or more too many
        with service.client() as client:
            refused = client.post("/v1/chat/completions", json=asked)
            assert refused.status_code == 429
            assert "60 tokens a day" in refused.text
            asked["max_tokens"] = 1
            client.post("/v1/chat/completions", json=asked).raise_for_status()
    finally:
        service.end()


def test_a_run_whose_time_ended_while_nothing_served_it_is_expired(
    service: Service, waiting: Storm
) -> None:
    ids = [call.run for call in waiting.history.calls]
    with service.client() as client:
        answer = client.post(
            "/api/v1/workflows/steps/invoke?timeout=3",
            json={"number": 99, "log": str(waiting.log), "path": str(waiting.go)},
            headers={"Prefer": "respond-async"},
        )
    late = answer.json()["id"]
    service.kill("all")
    time.sleep(3)  # the time of the run, not of the test
    service.start()
    waiting.go.touch()
    waiting.settle()
    assert waiting.history.problems() == []
    with service.client() as client:
        found = client.get(f"/api/v1/runs/{late}").json()
        assert found["state"] == "expired"
        assert found["problem"]["status"] == 504
        listed = {each["id"] for each in client.get("/api/v1/runs").json()["runs"]}
    assert {late, *ids} <= listed


def test_a_run_that_kills_its_service_again_and_again_is_left_alone(
    service: Service, waiting: Storm
) -> None:
    service.kill("all")
    guilty = waiting.history.calls[0].run
    database = _state(service)
    database.write_now(update(runs).where(runs.c.id == guilty).values(suspected=5))
    database.close()
    service.start()
    waiting.go.touch()
    waiting.settle()
    with service.client() as client:
        found = client.get(f"/api/v1/runs/{guilty}").json()
        assert found["state"] == "failed"
        assert "died 5 times" in found["problem"]["detail"]
    others = {call.run: call for call in waiting.history.calls if call.run != guilty}
    assert all(waiting.history.results[run] == call.expected for run, call in others.items())


def test_a_run_goes_on_with_the_version_it_began_with(service: Service, waiting: Storm) -> None:
    service.kill("all")
    service.start()
    with service.client() as client:
        other = TEXT.replace('number: "${first}", waited', 'number: "${slow}", waited')
        assert other != TEXT
        client.put("/api/v1/workflows/steps", content=other).raise_for_status()
    service.kill("all")
    service.start()
    waiting.go.touch()
    waiting.settle()
    assert waiting.history.problems() == []


def test_a_service_that_ends_leaves_its_runs_to_the_next_one(
    service: Service, waiting: Storm, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.end()
    service.start()
    waiting.go.touch()
    waiting.settle()
    assert waiting.history.problems() == []
    assert len(waiting.log.read_text().splitlines()) == 12


def test_a_stream_that_was_cut_ends_with_an_error_and_repeats_no_token(service: Service) -> None:
    headers = {"Accept": "text/event-stream", "Idempotency-Key": "cut"}
    place, body = "/api/v1/workflows/talks/invoke", {"question": "why"}
    with service.client() as client:
        client.put("/api/v1/workflows/talks", content=TALKS).raise_for_status()
        with client.stream("POST", place, json=body, headers=headers) as answer:
            seen = []
            for line in answer.iter_lines():
                seen.append(line)
                if sum(each == "event: Tokens" for each in seen) == 5 and not line:
                    break
            service.kill("all")
    service.start()
    with service.client() as client:
        again = client.post(place, json=body, headers=headers).text.splitlines()
    assert again[: len(seen)] == seen, "what was sent is what the journal has"
    kinds = [line for line in again if line.startswith("event: ")]
    assert kinds[-2:] == ["event: RunResumed", "event: RunFailed"]
    attempts = {line.split('"attempt":')[1][:3] for line in again if '"type":"Tokens"' in line}
    assert len(attempts) == 1, "tokens of one attempt"


def test_a_second_service_on_the_same_home_is_refused(service: Service) -> None:
    second = Service(service.home)
    with pytest.raises(RuntimeError, match="did not start"):
        second.start()
    assert "another service" in (service.home / "serve-1.log").read_text()


def test_a_damaged_file_is_refused_at_the_start(service: Service, waiting: Storm) -> None:
    service.kill("all")
    path = service.home / "gateway" / "state.db"
    database = _state(service)
    database.close()  # what is in the log goes into the file
    data = bytearray(path.read_bytes())
    for offset in range(len(data) // 2, len(data) // 2 + 4096):
        data[offset] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(RuntimeError, match="did not start"):
        service.start()
    assert "damaged" in (service.home / "serve-2.log").read_text()


def test_a_torn_tail_of_the_log_loses_only_what_was_not_committed(
    service: Service, waiting: Storm
) -> None:
    service.kill("all")
    log = service.home / "gateway" / "state.db-wal"
    with log.open("ab") as file:  # a group that was cut off in the middle
        file.write(os.urandom(3000))
    service.start()
    waiting.go.touch()
    waiting.settle()
    assert waiting.history.problems() == []


def test_the_checker_finds_what_it_is_for() -> None:
    def history(*states: str, result: int = 1) -> History:
        made = History()
        call: Call = made.invoke("k", 1)
        made.close(call, "ok", "r")
        for state in states:
            made.saw("r", state, result)
        return made

    assert history("running", "succeeded").problems() == []
    assert history("running").problems(), "it never ended"
    assert history("failed", "succeeded").problems(), "it ended twice"
    assert history("succeeded", "running").problems(), "it came back"
    assert history("succeeded", result=2).problems(), "it has another result"
    two = history("succeeded")
    two.close(two.invoke("k", 1), "ok", "other")
    assert two.problems(), "one key, two runs"
    assert oracle(1) == 80_005
    assert "succeeded" in ENDS
    done = (1, "StageCompleted", {"stage": "a"})
    end = (2, "RunCompleted", {"stage": ""})
    assert events_are_right([(0, "RunStarted", {"stage": ""}), done, end]) == []
    assert events_are_right([done, end]), "a gap"
    assert events_are_right([(0, *end[1:]), done]), "something after the end"
    assert events_are_right([(0, *done[1:]), done, end]), "recorded twice"
