from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from stub_runtime import PASSAGES, Cli, StubRuntime

from adjoin.dag import Graph

ECHO = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: NAME}
spec:
  inputs: {question: {type: string}, style: {type: string, default: plain}}
  stages:
    prompt: {uses: prompt, with: {template: "{{ q }}", q: "${inputs.question} ${inputs.style}"}}
    answer: {uses: generate, with: {prompt: "${prompt}", model: m, temperature: 0.7}}
  outputs: {answer: "${answer}"}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return jsonl(
        tmp_path / "questions.jsonl",
        {"question": "What is Dask?", "answer": "a library", "relevant": "dask.md"},
        {"question": "What does it do?", "answer": ["it runs", "dask"], "relevant": "tasks.md"},
        {"question": "Why?", "answer": "nobody knows", "relevant": {"text": "nowhere"}},
    )


def jsonl(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def flows(tmp_path: Path) -> tuple[Path, Path]:
    """Two workflows that differ in their names."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(ECHO.replace("NAME", "one"))
    two.write_text(ECHO.replace("NAME", "two").replace("default: plain", "default: fancy"))
    return one, two


def test_metrics_of_one_workflow(
    cli: Cli, runtime: type[StubRuntime], example: Path, data: Path
) -> None:
    code, out, err = cli(
        "eval", example, "k=2", "--data", data,
        *("--metric", "contains", "--metric", "f1", "--metric", "recall@1", "--metric", "recall@5"),
    )  # fmt: skip
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    # "Dask is a library. [1]" has "a library" and "dask"; of the passages dask.md is the first.
    assert rows["contains"][2:] == ["0.667", "0.208", "to", "0.939", "3"]
    assert rows["recall@1"][2] == "0.333"
    assert rows["recall@5"][2] == "0.667"
    assert "recall@5: " in err and "at most 2 passages" in err
    cost = next(line for line in out.splitlines() if line.startswith(str(example)[:20]))
    assert cost.split()[1:] == ["3", "0", "1.50", "1.50", "120", "64", "5"]
    assert [call[2]["k"] for call in runtime.made[0].calls] == [2, 2, 2]


def test_two_workflows_question_by_question(
    cli: Cli,
    runtime: type[StubRuntime],
    flows: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = jsonl(
        tmp_path / "q.jsonl",
        *({"question": str(at), "gold": "yes"} for at in range(10)),
    )

    def reply(self: StubRuntime, graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Any]:
        right = graph.name == "two" or inputs["question"] in "89"
        return {"answer": "yes" if right else "no"}

    monkeypatch.setattr(runtime, "reply", reply)
    one, two = flows
    arguments = ("eval", one, "--against", two, "--data", data, "--reference", "gold")
    code, out, _ = cli(*arguments, "--metric", "exact", "--json")
    assert code == 0
    found = json.loads(out)
    assert [each["metrics"]["exact"]["mean"] for each in found["workflows"]] == [0.2, 1.0]
    compared = found["comparison"]["exact"]
    assert compared["difference"]["mean"] == pytest.approx(0.8)
    assert 0.4 < compared["difference"]["low"] < 0.8 < compared["difference"]["high"] <= 1
    assert (compared["wins"], compared["losses"], compared["ties"]) == (8, 0, 2)
    assert compared["p"] == pytest.approx(2 / 256)
    code, out, _ = cli(*arguments, "--metric", "f1")
    line = next(line for line in out.splitlines() if "+0.800" in line)
    assert line.split()[-3:] == ["8", "0", "2"]


def test_a_failed_run_counts_as_wrong_and_is_reported(
    cli: Cli, runtime: type[StubRuntime], example: Path, tmp_path: Path
) -> None:
    data = jsonl(
        tmp_path / "q.jsonl",
        {"question": "good", "answer": "dask"},
        {"question": "bad", "answer": "dask"},
    )
    output = tmp_path / "out.jsonl"
    code, out, err = cli(
        "eval", example, "--data", data, "--metric", "contains", "--output", output, "--json"
    )
    assert code == 8
    found = json.loads(out)["workflows"][0]
    assert found["metrics"]["contains"]["mean"] == 0.5
    assert (found["cost"]["runs"], found["cost"]["failed"]) == (2, 1)
    assert "1 of 2 runs failed; line 2: stage 'answer': the replica died" in err
    good, bad = records(output)
    assert (good["scores"], good["output"]["answer"]) == (
        {"contains": 1.0},
        "Dask is a library. [1]",
    )
    assert bad["error"]["code"] == "stage"
    assert bad["scores"] == {"contains": 0.0}


def test_an_interrupted_evaluation_goes_on(
    cli: Cli, runtime: type[StubRuntime], example: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    arguments = ("eval", example, "--data", data, "--metric", "exact", "--output", output)
    runtime.interrupt, runtime.interrupt_at = True, "Why?"
    code, out, err = cli(*arguments, "--concurrency", "1")
    assert (code, out, err) == (130, "", "cancelled\n")
    assert [each["line"] for each in records(output)] == [1, 2]
    with output.open("a") as file:
        file.write('{"workflow": "cut')  # as after a kill
    runtime.interrupt = False
    assert cli(*arguments).code == 4
    code, out, err = cli(*arguments, "--resume")
    assert code == 0
    assert "2 of 3 runs are in the file" in err
    assert [call[2]["question"] for call in runtime.made[-1].calls] == ["Why?"]
    assert [each["line"] for each in records(output)] == [1, 2, 3]
    # Other inputs are other runs; other metrics are not.
    cli(*arguments, "--resume", "--metric", "contains")
    assert runtime.made[-1].calls == []
    cli(*arguments, "k=7", "--resume")
    assert len(runtime.made[-1].calls) == 3


def test_lines_are_in_the_file_as_their_runs_end(
    cli: Cli,
    runtime: type[StubRuntime],
    example: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out.jsonl"
    seen: list[int] = []

    def reply(self: StubRuntime, graph: Graph, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        seen.append(len(records(output)))
        return self.outputs

    monkeypatch.setattr(runtime, "reply", reply)
    arguments = ("eval", example, "--data", data, "--metric", "exact", "--output", output)
    assert cli(*arguments, "--concurrency", "1").code == 0
    assert seen == [0, 1, 2]


def test_failed_runs_are_run_again(
    cli: Cli, runtime: type[StubRuntime], example: Path, tmp_path: Path
) -> None:
    data = jsonl(tmp_path / "q.jsonl", {"question": "bad", "answer": "x"})
    output = tmp_path / "out.jsonl"
    arguments = ("eval", example, "--data", data, "--metric", "exact", "--output", output)
    assert cli(*arguments).code == 8
    assert cli(*arguments, "--resume").code == 8
    assert len(runtime.made[-1].calls) == 1


def test_a_part_of_the_questions_is_spread(
    cli: Cli, runtime: type[StubRuntime], example: Path, tmp_path: Path
) -> None:
    lines = [{"question": str(at), "answer": "x"} for at in range(10)]
    data = jsonl(tmp_path / "q.jsonl", *lines)
    cli("eval", example, "--data", data, "--metric", "exact", "--limit", "4")
    assert [call[2]["question"] for call in runtime.made[0].calls] == ["0", "2", "5", "7"]


def test_inputs_of_one_workflow_only(
    cli: Cli, runtime: type[StubRuntime], flows: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = flows
    text = ECHO.replace("NAME", "two").replace(", style: {type: string, default: plain}", "")
    two.write_text(text.replace(" ${inputs.style}", ""))
    data = jsonl(tmp_path / "q.jsonl", {"question": "x", "answer": "y"})
    arguments = ("eval", one, "--against", two, "--data", data, "--metric", "exact")
    assert cli(*arguments, "style=old").code == 0
    assert [call[2] for call in runtime.made[0].calls] == [
        {"question": "x", "style": "old"},
        {"question": "x"},
    ]
    code, _, err = cli(*arguments, "styl=old")
    assert (code, "no input 'styl'; did you mean 'style'?" in err) == (3, True)


def test_documents_are_read_once_for_both(
    cli: Cli, runtime: type[StubRuntime], example: Path, data: Path, tmp_path: Path
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "dask.md").write_text("Dask")
    cli("eval", example, "--against", example, "--data", data, "--metric", "exact", "--docs", docs)
    assert [call[0] for call in runtime.made[0].calls] == ["add_files", *["submit"] * 6]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"question": "x"}, "q.jsonl:2: has no 'answer', which the metrics need; add"),
        ({"question": "x", "answer": []}, "q.jsonl:2: 'answer' is an empty list"),
        ({"question": "x", "answer": {"a": 1}}, "q.jsonl:2: 'answer' is"),
        ({"question": "x", "answer": ""}, "q.jsonl:2: 'answer' is"),
        ({"question": "x", "answr": "y"}, "'answr' is neither an input of workflow 'rag'"),
        ({"question": 5, "answer": "y"}, "q.jsonl:2: input 'question'"),
        ({"question": "x", "answer": "y"}, "q.jsonl:2: has no 'relevant'"),
        ({"question": "x", "answer": "y", "relevant": {"txt": "z"}}, "q.jsonl:2: 'relevant' is"),
        ({"question": "x", "answer": "y", "relevant": [3]}, "q.jsonl:2: 'relevant' is 3"),
    ],
)
def test_a_wrong_line_stops_all_before_they_start(
    cli: Cli,
    runtime: type[StubRuntime],
    example: Path,
    tmp_path: Path,
    line: dict[str, Any],
    message: str,
) -> None:
    good = {"question": "x", "answer": "y", "relevant": "z"}
    data = jsonl(tmp_path / "q.jsonl", good, line)
    code, out, err = cli(
        "eval", example, "--data", data, "--metric", "exact", "--metric", "recall@2"
    )
    assert (code, out) == (3, "")
    assert message in err
    assert err.count("\n") == 1
    assert not runtime.made


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 3, "no metric is given"),
        (["--metric", "blue"], 3, "no metric 'blue'"),
        (["--metric", "numeric"], 3, "questions.jsonl:1: there is no number in 'a library'"),
        (["--metric", "exact", "--answer", "anser"], 3, "no output 'anser'; did you mean"),
        (["--metric", "exact", "--reference", "question"], 3, "has an input 'question', too"),
        (["--metric", "exact", "--resume"], 3, "give --output too"),
        (["--metric", "exact", "--verify"], 3, "without --metric"),
        (["--verify", "--cluster", "tcp://x:1"], 3, "without --cluster"),
        (["--metric", "exact", "--docs", "nowhere"], 4, "nowhere"),
        (["--metric", "exact", "--against", "none.yaml"], 4, "none.yaml"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    cli: Cli,
    runtime: type[StubRuntime],
    example: Path,
    data: Path,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    ended = cli("eval", example, "--data", data, *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err
    assert not runtime.made


def test_several_outputs_that_may_be_the_answer(
    cli: Cli, runtime: type[StubRuntime], tmp_path: Path
) -> None:
    flow = tmp_path / "flow.yaml"
    flow.write_text(ECHO.replace("NAME", "two").replace("{answer:", "{asked: '${prompt}', answer:"))
    data = jsonl(tmp_path / "q.jsonl", {"question": "x", "answer": "y"})
    arguments = ("eval", flow, "--data", data, "--metric", "exact")
    code, _, err = cli(*arguments)
    assert code == 3
    assert "several outputs may be the answer: asked, answer; name it: --answer OUTPUT" in err
    assert cli(*arguments, "--answer", "answer").code == 0
    code, _, err = cli(*arguments, "--answer", "asked", "--metric", "recall@1")
    assert (code, "'relevant'" in err or "--passages OUTPUT" in err) == (3, True)


# --- verify ---------------------------------------------------------------------------------------


def test_both_plans_agree(
    cli: Cli, runtime: type[StubRuntime], flows: tuple[Path, Path], data: Path
) -> None:
    questions = [json.loads(line)["question"] for line in data.read_text().splitlines()]
    code, out, err = cli("eval", flows[0], "--data", data, "--verify", "--set", "workers=3")
    assert (code, out) == (0, "")
    assert "temperature 0 instead of their own: stages answer" in err
    assert "3 of 3 answers are the same with both plans, 0 differ" in err
    naive, optimised = runtime.made
    assert (naive.settings.workers, naive.settings.replica_sequences) == (1, 1)
    assert not naive.settings.prefix_caching
    assert (optimised.settings.workers, optimised.settings.replica_sequences) == (3, 0)
    assert optimised.settings.prefix_caching
    for made in runtime.made:
        assert [call[2]["question"] for call in made.calls] == questions


def test_a_plan_that_changes_answers_is_found(
    cli: Cli,
    runtime: type[StubRuntime],
    example: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reply(self: StubRuntime, graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Any]:
        broken = self.settings.prefix_caching and inputs["question"] == "Why?"
        text = "It is so, since nobody ever said that it is not "
        return {"answer": text + ("today" if broken else "now"), "sources": PASSAGES}

    monkeypatch.setattr(runtime, "reply", reply)
    code, out, err = cli("eval", example, "--data", data, "--verify")
    assert code == 1
    assert out == (
        "line 3: output 'answer': naive '…body ever said that it is not now', "
        "optimised '…body ever said that it is not today'\n"
    )
    assert "2 of 3 answers are the same with both plans, 1 differ" in err
    code, out, _ = cli("eval", example, "--data", data, "--verify", "--json")
    assert code == 1
    assert [each["line"] for each in json.loads(out)["differences"]] == [3]


def test_runs_that_fail_with_both_plans_are_no_agreement(
    cli: Cli, runtime: type[StubRuntime], example: Path, tmp_path: Path
) -> None:
    data = jsonl(tmp_path / "q.jsonl", {"question": "bad"}, {"question": "good"})
    code, out, err = cli("eval", example, "--data", data, "--verify")
    assert (code, out) == (8, "")
    assert "1 of 2 answers are the same" in err
