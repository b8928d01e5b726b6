"""``adjoin eval`` on a cluster of its own, with the fake engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adjoin.cli import main

FLOW = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: say}
spec:
  inputs: {question: {type: string}}
  models:
    m: {source: "fake:eval", engine: fake, args: ARGS}
  stages:
    answer: {uses: generate, with: {prompt: "${inputs.question}", model: m, max_tokens: 16}}
  outputs: {answer: "${answer}"}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADJOIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ADJOIN_HOST_LINGER_S", "1")
    return tmp_path


def flow(folder: Path, name: str, **args: Any) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(FLOW.replace("ARGS", json.dumps(args)))
    return str(path)


@pytest.fixture
def data(home: Path) -> str:
    path = home / "q.jsonl"
    lines = [
        {"question": f"{at} is {'even' if at % 2 == 0 else 'odd'}", "answer": "even"}
        for at in range(8)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return str(path)


def test_two_workflows(home: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = flow(home, "one"), flow(home, "two", answer="they are even")
    output = home / "out.jsonl"
    arguments = ["eval", one, "--against", two, "--data", data, "--output", str(output)]
    assert main([*arguments, "--metric", "contains", "--concurrency", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["metrics"]["contains"]["mean"] for each in found["workflows"]] == [0.5, 1.0]
    assert found["comparison"]["contains"]["wins"] == 4
    assert found["workflows"][0]["cost"]["generated"] == 3
    assert found["workflows"][0]["cost"]["p50"] > 0
    assert len(output.read_text().splitlines()) == 16


def test_plans_that_agree_and_plans_that_do_not(
    home: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault in batching, which one request at a time does not meet."""
    right = flow(home, "right", interval_s=0.01)
    assert main(["eval", right, "--data", data, "--verify"]) == 0
    assert "8 of 8 answers are the same" in capsys.readouterr().err
    wrong = flow(home, "wrong", interval_s=0.05, mix_up=True)
    assert main(["eval", wrong, "--data", data, "--verify"]) == 1
    out, err = capsys.readouterr()
    assert "output 'answer': naive '" in out
    assert "0 differ" not in err


@pytest.mark.models
@pytest.mark.usefixtures("fresh_home")
def test_a_small_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "cat.txt").write_text("The cat of the house is called Minka.")
    (folder / "mill.txt").write_text("The old mill stands at the river.")
    lines = [
        {"question": "What is the cat called?", "answer": "Minka", "relevant": "cat.txt"},
        {"question": "Where is the old mill?", "answer": "river", "relevant": "mill.txt"},
    ]
    data = tmp_path / "q.jsonl"
    data.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    example = str(Path(__file__).parents[2] / "examples" / "rag" / "workflow.yaml")
    arguments = ["eval", example, "k=1", "--data", str(data), "--docs", str(folder)]
    assert main([*arguments, "--metric", "contains", "--metric", "recall@1", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["workflows"][0]["metrics"]
    assert metrics["recall@1"]["mean"] == 1.0
    assert metrics["contains"]["mean"] >= 0.5
