"""Deployments without a service: versions, drains, quotas, and what is kept on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text as sql
from texts import text

from adjoin import Settings
from adjoin.dag import Graph
from adjoin.errors import NotFound, QuotaExceeded, StateError
from adjoin.loading import load_text
from adjoin.runtime.database import open_file
from adjoin.runtime.gateway.deployments import Deployments
from adjoin.runtime.gateway.lanes import Lanes
from adjoin.runtime.gateway.state import SavedWorkflows
from adjoin.runtime.gateway.tenancy import belonging, shown_name, stored_name
from adjoin.runtime.policies.admission import Limits

SETTINGS = Settings(allowed_modules=("gateway_flows",), max_workflows=2, serve_queue=7)

LANES = Lanes(SETTINGS, lambda: None)


def graph(name: str, function: str = "shout", serve: str = "") -> Graph:
    return load_text(text(name, function, serve=serve), SETTINGS)


@pytest.fixture
def saved(tmp_path: Path) -> SavedWorkflows:
    return SavedWorkflows(open_file(tmp_path / "state.db"))


@pytest.fixture
def deployments(saved: SavedWorkflows) -> Deployments:
    return Deployments(SETTINGS, saved, LANES)


def test_a_new_version_shares_the_queue_and_the_old_one_stays_until_its_runs_end(
    deployments: Deployments,
) -> None:
    old, _ = deployments.deploy("acme", graph("flow", serve="concurrency: 2"))
    deployments.entered(old)
    new, changed = deployments.deploy("acme", graph("flow", "same"))
    assert changed and new.gate is old.gate
    assert new.gate.limits == Limits(SETTINGS.serve_concurrency, 7, patience=1.0)
    assert deployments.of("acme") == [new, old]
    deployments.left(old)
    assert deployments.of("acme") == [new]


def test_only_how_it_is_served_may_change(deployments: Deployments) -> None:
    old, _ = deployments.deploy("acme", graph("flow"))
    new, changed = deployments.deploy("acme", graph("flow", serve="concurrency: 5, queue: 0"))
    assert changed
    assert new.graph.version == old.graph.version
    assert new.gate.limits == Limits(5, 0)


def test_what_is_saved_is_what_was_deployed_last(
    deployments: Deployments, saved: SavedWorkflows
) -> None:
    flow = graph("flow")
    deployments.deploy("acme", flow)
    assert saved.all() == [], "what the operator names is named again"
    deployments.deploy("acme", flow, "text")
    assert [each.text for each in saved.all()] == ["text"], "unchanged, but now to be kept"
    deployments.deploy("acme", graph("flow", "same"), "other")
    (kept,) = saved.all()
    assert (kept.text, kept.revision) == ("other", 2)
    again = Deployments(SETTINGS, saved, LANES)
    again.restore(kept, graph("flow", "same"))
    assert again.find("acme", "flow").revision == 2
    deployments.delete("acme", "flow")
    assert saved.all() == []
    with pytest.raises(NotFound):
        deployments.delete("acme", "flow")


def test_a_state_that_cannot_be_written_changes_nothing(
    deployments: Deployments, saved: SavedWorkflows
) -> None:
    old, _ = deployments.deploy("acme", graph("flow"))
    saved._database.write_now(sql("DROP TABLE deployments"))
    with pytest.raises(StateError):
        deployments.deploy("acme", graph("flow", "same"), "text")
    assert deployments.find("acme", "flow") is old
    with pytest.raises(StateError):
        deployments.delete("acme", "flow")
    assert deployments.find("acme", "flow") is old


def test_a_tenant_has_so_many_workflows(deployments: Deployments) -> None:
    for name in ("one", "two", "one"):
        deployments.deploy("acme", graph(name))
    with pytest.raises(QuotaExceeded):
        deployments.deploy("acme", graph("three"))
    deployments.deploy("other", graph("three"))


def test_names_of_collections_lead_back_to_their_tenant_only() -> None:
    assert stored_name("default", "notes") == "notes"
    assert stored_name("acme", "notes") == "acme.notes"
    for tenant in ("default", "acme", "acme-2"):
        stored = stored_name(tenant, "notes")
        for other in ("default", "acme", "acme-2"):
            assert shown_name(other, stored) == ("notes" if other == tenant else None)
    assert shown_name("default", "default.notes") is None


def test_nested_workflows_use_the_tenants_collections() -> None:
    nested = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: outer}
spec:
  inputs: {question: {type: string}}
  workflows:
    inner:
      inputs: {question: {type: string}}
      stages:
        vector: {uses: embed, with: {texts: "${inputs.question}", model: minilm}}
        found: {uses: retrieve, with: {vector: "${vector}", collection: notes}}
      outputs: "${found}"
  stages:
    only: {uses: inner, with: {question: "${inputs.question}"}}
  outputs: "${only}"
"""
    loaded = load_text(nested, SETTINGS)
    theirs = belonging(loaded, "acme")
    assert theirs.collection_names() == {"acme.notes"}
    assert theirs.version != loaded.version, "plans and caches are not shared with another tenant"
    assert belonging(loaded, "default") == loaded
