"""Usage over HTTP: whose it is, what it comes to, and runs that their budget stops."""

from __future__ import annotations

import csv
import io
from typing import Any

SAYS = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: NAME}
spec:
  inputs: {text: {type: string}}
  models: {m: {source: "fake:", args: {words: WORDS, interval_s: 0.002}}}
  stages:
    say: {uses: generate, with: {prompt: "${inputs.text}", model: m, max_tokens: 500}}
  outputs: {said: "${say}"}
"""


def deployed(client: Any, name: str, words: int) -> str:
    text = SAYS.replace("NAME", name).replace("WORDS", str(words))
    answer = client.put(
        f"/api/v1/workflows/{name}", content=text, headers={"Content-Type": "application/yaml"}
    )
    assert answer.is_success, answer.text
    return f"/api/v1/workflows/{name}/invoke"


def used(client: Any, **query: Any) -> list[dict[str, Any]]:
    answer = client.get("/api/v1/usage", params=query)
    assert answer.is_success, answer.text
    found: list[dict[str, Any]] = answer.json()["usage"]
    return found


def test_a_run_is_billed_once_to_its_tenant(served: Any) -> None:
    with served.client("payer") as client, served.client("neighbour") as other:
        invoke = deployed(client, "billed", 7)
        for _ in range(3):
            assert client.post(invoke, json={"text": "one two"}).is_success
        (line,) = used(client, by="workflow,model,stage")
        assert (line["workflow"], line["model"], line["stage"]) == ("billed", "fake:", "say")
        assert (line["billed"]["prompt"], line["billed"]["generated"]) == (6, 21)
        assert line["billed"]["seconds"] > 0
        assert line["wasted"]["generated"] == line["open"]["generated"] == 0
        (whole,) = used(client)
        assert (whole["runs"], whole["failed"]) == (3, 0)
        assert whole["stage_seconds"] > 0
        assert used(client) == [whole]
        assert used(other) == []
        assert other.get("/api/v1/usage", params={"everyone": True}).status_code == 403
    with served.client("payer", "admin") as admin:
        tenants = {line["tenant"] for line in used(admin, by="tenant", everyone=True)}
        assert "payer" in tenants


def test_csv_has_the_same_and_no_formulas(served: Any) -> None:
    with served.client("sheet") as client:
        client.post(deployed(client, "listed", 2), json={"text": "a"})
        answer = client.get("/api/v1/usage", headers={"Accept": "text/csv"})
        assert answer.headers["content-type"].startswith("text/csv")
        (row,) = csv.DictReader(io.StringIO(answer.text))
        assert (row["workflow"], row["billed_generated"], row["runs"]) == ("listed", "2", "1")


def test_a_run_over_its_budget_stops_and_says_so(served: Any) -> None:
    with served.client("thrifty") as client:
        invoke = deployed(client, "endless", 400)
        answer = client.post(invoke, params={"budget": 10}, json={"text": "one two"})
        assert answer.status_code == 429
        assert "the run's budget of 10 tokens" in answer.json()["detail"]
        (line,) = used(client)
        assert line["billed"]["prompt"] + line["billed"]["generated"] == 10, line
        assert (line["runs"], line["failed"]) == (1, 1)


def test_an_unknown_key_is_an_error(client: Any) -> None:
    answer = client.get("/api/v1/usage", params={"by": "moon"})
    assert answer.status_code in (400, 422)
    assert "moon" in answer.json()["detail"]
