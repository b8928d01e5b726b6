from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import adjoin
from adjoin.dag import Graph
from adjoin.types import RunCompleted, StageStarted

EXAMPLE = Path(__file__).parents[2] / "examples" / "cot"
TESLA = (
    "Nikola Tesla was born in Smiljan in 1856. His father was a priest. He moved to New York in "
    "1884, where he worked for Thomas Edison for a year."
)
WORKFLOWS = {
    "decompose": "decompose.py:decompose",
    "self_consistency": "self_consistency.py:self_consistency",
    "one_sample": "self_consistency.py:one_sample",
    "tree": "tree.py:tree",
}


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    yield
    for name in ("decompose", "self_consistency", "tree"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_python_and_yaml_are_one_graph(name: str) -> None:
    python = adjoin.load(f"{EXAMPLE}/{WORKFLOWS[name]}")
    yaml = adjoin.load(EXAMPLE / f"{name}.yaml")
    assert python.version == yaml.version
    assert python == yaml


def test_the_baseline_differs_in_the_number_of_samples_only() -> None:
    one, many = (
        adjoin.load(EXAMPLE / f"{name}.yaml") for name in ("one_sample", "self_consistency")
    )
    differ = [stage.id for stage in one.stages if stage != many.stage(stage.id)]
    assert differ == ["samples"]
    first, second = one.stage("samples").bindings, many.stage("samples").bindings
    assert [name for name in first if first[name] != second[name]] == ["n"]


def test_questions_fit_both() -> None:
    (line,) = (EXAMPLE / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    for name in ("one_sample", "self_consistency"):
        adjoin.load(EXAMPLE / f"{name}.yaml").check_inputs(json.loads(line))


def test_thoughts_branch_once_and_conclusions_stay() -> None:
    adjoin.load(f"{EXAMPLE}/tree.py:tree")
    tree = sys.modules["tree"]
    first = tree.branches([""], [["One.", " One. ", "Two.", ""]])
    assert first == ["One.", "Two."]
    done = "Two.\nThe answer is two."
    assert tree.branches(["One.", done], [["So two.", "One."], ["More."]]) == [
        "One.\nSo two.",
        done,
    ]
    assert tree.branches(["One."], [["One."]]) == ["One."]
    assert tree.finished([done, "One."])
    assert not tree.finished(["One.", done])
    assert not tree.finished(["The answer is two.\nNo."])


def test_the_pictures_show_fan_outs_loops_and_conditions() -> None:
    solve = adjoin.load(EXAMPLE / "decompose.yaml").to_mermaid()
    assert 'subgraph stage_solved["solved<br/>solve<br/>\N{MULTIPLICATION SIGN} each' in solve
    tree = adjoin.load(EXAMPLE / "tree.yaml").to_mermaid()
    assert "↻ until result.done, at most 3" in tree
    vote = adjoin.load(EXAMPLE / "self_consistency.yaml").to_mermaid()
    assert "if size(named)" in vote.replace("#40;", "(").replace("#41;", ")")


def ran(runtime: adjoin.Runtime, graph: Graph, **inputs: Any) -> tuple[dict[str, Any], list[str]]:
    """The outputs, and what started, in order."""
    outputs: dict[str, Any] = {}
    started: list[str] = []
    for event in runtime.stream(graph, **inputs):
        match event.body:
            case StageStarted():
                started.append(event.stage)
            case RunCompleted(outputs=found):
                outputs = found
    return outputs, started


@pytest.mark.models
@pytest.mark.usefixtures("fresh_home")
def test_each_runs_on_real_models(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "faiss.md").write_text("# FAISS\n\nFAISS is a library for similarity search.\n")
    (notes / "ruff.md").write_text("# Ruff\n\nRuff is a linter for Python, written in Rust.\n")
    with adjoin.Runtime() as runtime:
        runtime.collection("handbook", embedding="minilm").add_files(notes)
        outputs, started = ran(
            runtime, adjoin.load(EXAMPLE / "decompose.yaml"), question="What are FAISS and Ruff?"
        )
        assert 2 <= len(outputs["parts"]) <= 3 and outputs["answer"].strip()
        assert all(part["source"].endswith(".md") for part in outputs["parts"])
        assert {f"solved[{at}]/vector" for at in range(len(outputs["parts"]))} <= set(started)

        asked = {"passage": TESLA, "question": "For whom did Tesla work in New York?"}
        choices = ["Marie Curie", "Thomas Edison", "George Stephenson", "Isaac Newton"]
        vote = adjoin.load(EXAMPLE / "self_consistency.yaml")
        outputs, started = ran(runtime, vote, **asked, choices=choices)
        assert outputs["answer"] == "Thomas Edison"
        assert {f"named[{at}]" for at in range(8)} <= set(started)
        one, _ = ran(runtime, adjoin.load(EXAMPLE / "one_sample.yaml"), **asked, choices=choices)
        assert len(one["votes"]) <= 1 and one["votes"] in (outputs["votes"][:1], [])

        outputs, started = ran(runtime, adjoin.load(EXAMPLE / "tree.yaml"), **asked)
        assert outputs["answer"].strip() and outputs["thoughts"].strip()
        assert {"grown#1", "grown#1/thoughts[0]", "grown#1/marks[0]"} <= set(started)
        assert "grown#4" not in started
