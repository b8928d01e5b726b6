"""Whether it lives, whether it takes work, its figures, its document."""

from __future__ import annotations

from typing import Any

import httpx2
from openapi_paths import documented
from prometheus_client.parser import text_string_to_metric_families
from texts import FIGURED, text
from waiting import until

YAML = {"Content-Type": "application/yaml"}


def test_it_lives_and_takes_work(served: Any) -> None:
    for path in ("/livez", "/readyz"):
        answer = httpx2.get(f"{served.url}{path}", headers={"Host": "10.0.0.7:8000"})
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_figures_count_runs_and_know_no_callers_paths(client: httpx2.Client) -> None:
    client.put("/api/v1/workflows/counted", content=text("counted"))
    client.post("/api/v1/workflows/counted/invoke", json={"text": "a"})
    client.get("/api/v1/workflows/secret-name")
    client.get("/no/such/secret-path")
    figures = client.get("/metrics").text
    assert 'adjoin_runs_total{state="succeeded",tenant="default",workflow="counted"} 1.0' in figures
    assert 'adjoin_runs_running{tenant="default",workflow="counted"} 0.0' in figures
    assert 'route="/api/v1/workflows/{name}",status="404"' in figures
    assert "secret" not in figures


def test_figures_have_the_engines(client: httpx2.Client) -> None:
    client.put("/api/v1/collections/engines", json={"embedding": "fake:"})
    documents = {"documents": [{"text": "cats purr"}]}
    client.post("/api/v1/collections/engines/documents", json=documents)
    figures = client.get("/metrics").text
    lines = [
        each
        for each in figures.splitlines()
        if each.startswith("adjoin_engine_tokens_total") and 'kind="embedded"' in each
    ]
    counts = [float(line.split()[-1]) for line in lines if 'model="fake:"' in line]
    assert max(counts) >= 2


def test_figures_have_what_the_engines_say_themselves(client: httpx2.Client) -> None:
    client.put("/api/v1/workflows/figured", content=FIGURED, headers=YAML)
    client.post("/api/v1/workflows/figured/invoke", json={"text": "one two three"})

    def told() -> dict[str, float]:
        families = text_string_to_metric_families(client.get("/metrics").text)
        return {
            sample.name: sample.value
            for family in families
            for sample in family.samples
            if sample.name.startswith("fake:") and sample.labels["model"] == "figured"
        }

    until(lambda: told() == {"fake:prompt_tokens_total": 3, "fake:generation_tokens_total": 9})


def test_every_route_is_in_the_document_and_in_the_documentation(served: Any) -> None:
    document = httpx2.get(f"{served.url}/openapi.json").json()
    assert documented(document["paths"]) == []
    problem = document["paths"]["/api/v1/runs"]["get"]["responses"]["default"]["content"]
    errors = document["paths"]["/v1/models"]["get"]["responses"]["default"]["content"]
    assert list(errors) == ["application/json"]
    assert "stage" in problem["application/problem+json"]["schema"]["properties"]
