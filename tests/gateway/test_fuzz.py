"""Whatever fits the OpenAPI document, or nearly, is answered: no 5xx, no traceback.

Each operation gets a few; `ADJOIN_FUZZ_CASES=2000 pytest tests/gateway/test_fuzz.py` spreads so
many over all of them.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from texts import text

from adjoin import Settings
from adjoin.runtime.gateway import create_app

schemathesis = pytest.importorskip("schemathesis")

_CASES = int(os.environ.get("ADJOIN_FUZZ_CASES", "200"))
#: What is there for it to find, so that it comes further than a 404.
_NAMES = {"name": "steady", "id": "mine", "source": "a.md"}
_MODELS = ("fake:", "steady", "minilm", "", "x" * 300)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    app = create_app(Settings(home=tmp_path_factory.mktemp("fuzz")))
    found: dict[str, Any] = app.openapi()
    app.state.service.database.close()
    return found


def operations(document: dict[str, Any]) -> list[Any]:
    schema = schemathesis.openapi.from_dict(document)
    return [each.ok() for each in schema.get_all_operations()]


def test_no_request_makes_the_service_fail(served: Any, document: dict[str, Any]) -> None:
    found = operations(document)
    assert len(found) > 20
    each = max(1, _CASES // len(found))
    with served.client("fuzz") as client:
        client.put("/api/v1/workflows/steady", content=text("steady"))
        client.put("/api/v1/collections/steady", json={"embedding": "fake:"})
        for operation in found:
            fuzz(served, operation, each)


def fuzz(served: Any, operation: Any, count: int) -> None:
    """Send cases of one operation; every second one to names that are there."""
    counted = 0

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def once(case: Any) -> None:
        nonlocal counted
        counted += 1
        if counted % 2 and case.path_parameters:
            known = {name: _NAMES.get(name, "mine") for name in case.path_parameters}
            case.path_parameters.update(known)
        if isinstance(case.body, dict) and counted % 3:
            case.body = {**case.body, "model": _MODELS[counted % len(_MODELS)]}
        check(served, case)

    once()


def check(served: Any, case: Any) -> None:
    key = f"Bearer {served.key('fuzz')}"
    answer = case.call(base_url=served.url, headers={"Authorization": key}, timeout=30)
    about = f"{case.as_curl_command()}: {answer.status_code} {answer.text[:500]}"
    assert answer.status_code < 500, about
    assert "Traceback" not in answer.text and 'File "' not in answer.text, about
