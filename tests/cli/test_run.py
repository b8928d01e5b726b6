from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stub_runtime import Cli, StubRuntime

from adjoin.errors import EngineError, StageError
from adjoin.types import StageWarning

QUESTION = "question=What is Dask?"


def test_tokens_then_what_came_after_them_then_sources_then_stages(
    cli: Cli, runtime: type[StubRuntime], example: Path
) -> None:
    code, out, err = cli("run", example, QUESTION, "k=2")
    assert code == 0
    answer, _, rest = out.partition("\nsources\n")
    assert answer == "Dask is a library. [1]\n"
    sources, _, table = rest.partition("\n\n")
    assert "[1] 0.900  dask.md, page 2" in sources
    assert "[2] 0.500  tasks.md" in sources
    assert "It schedules tasks." in sources
    row = next(line for line in table.splitlines() if line.startswith("answer"))
    assert row.split() == [
        "answer",
        "generate",
        "small",
        "worker-1",
        "1.250",
        "1.500",
        "120",
        "64",
        "5",
        "2.5",
    ]
    assert table.rstrip().splitlines()[-1].split()[0] == "total"
    assert runtime.made[0].calls == [("stream", {"question": "What is Dask?", "k": 2})]
    assert err == ""


def test_an_answer_that_is_not_what_was_streamed_is_printed_whole(
    cli: Cli, runtime: type[StubRuntime], example: Path
) -> None:
    runtime.outputs = {"answer": "Something else.", "note": {"n": 1}}
    code, out, _ = cli("run", example, QUESTION, "--quiet")
    assert code == 0
    assert out == 'Dask is a library.\nanswer: Something else.\nnote: {"n": 1}\n'


def test_a_warning_is_beside_the_answer(
    cli: Cli, runtime: type[StubRuntime], example: Path
) -> None:
    runtime.warning = StageWarning(what="it blocks", where="app.py:3, in f", why="why", hint="def")
    code, out, err = cli("run", example, QUESTION, "--quiet")
    assert code == 0
    assert out == "Dask is a library. [1]\n"
    assert err == "warning: stage 'answer': it blocks: why (app.py:3, in f); def\n"


def test_json_is_one_document(cli: Cli, runtime: type[StubRuntime], example: Path) -> None:
    code, out, _ = cli("run", example, QUESTION, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["workflow"] == "rag"
    assert found["outputs"]["answer"] == "Dask is a library. [1]"
    assert found["outputs"]["sources"][0]["source"] == "dask.md"
    assert [stage["stage"] for stage in found["stages"]] == [
        "vector", "passages", "prompt", "answer", "cited",
    ]  # fmt: skip
    answer = found["stages"][3]
    assert (answer["prompt"], answer["cached"], answer["generated"]) == (120, 64, 5)
    assert answer["cold_start_seconds"] == 2.5
    assert answer["seconds"] == 1.5


def test_models_cannot_steer_the_terminal(
    cli: Cli, runtime: type[StubRuntime], example: Path
) -> None:
    runtime.answer = ("a\x1b[2Jb\x07\x9b31m",)
    runtime.outputs = {"answer": "a\x1b[2Jb\x07\x9b31m"}
    _, out, _ = cli("run", example, QUESTION)
    assert not set(out) & {"\x1b", "\x07", "\x9b"}
    assert out.startswith("a[2Jb31m")


def test_documents_fill_the_collection_that_the_workflow_names(
    cli: Cli, runtime: type[StubRuntime], example: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.md").write_text("notes")
    code, _, err = cli("run", example, QUESTION, "--docs", tmp_path)
    assert code == 0
    assert runtime.made[0].calls[0] == ("add_files", "handbook", "minilm", tmp_path)
    assert "collection handbook: documents 2 added, 1 removed, 1 skipped; 9 passages" in err
    assert "skipped bad.pdf: is damaged" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 3, "needs the input 'question'"),
        (["question"], 3, "'question' is not an input; write key=value"),
        (["qestion=x"], 3, "no input 'qestion'; did you mean 'question'?"),
        (["question=x", "question=y"], 3, "input 'question' is given twice"),
        (["question="], 3, "input 'question': must have a length of at least 1"),
        (["question=" + "x" * 100_000], 3, "length of at most 4000, got 100000"),
        (["question=x", "k=0"], 3, "input 'k': must be at least 1, got 0"),
        (["question=x", "k=four"], 3, "input 'k'"),
        (["question=x", "--docs", "nowhere"], 4, "nowhere: there is no such file or folder"),
        (["question=x", "--docs", "{empty}", "--collection-name", "b"], 3, "is one of handbook"),
        (["question=x", "--output", "out.jsonl"], 3, "give --inputs too"),
        (["question=x", "--set", "wrkers=3"], 3, "no setting 'wrkers'; did you mean 'workers'?"),
        (["question=x", "--set", "workers=0"], 3, "--set: bad settings: workers: "),
        (["question=x", "--docs", "{empty}"], 3, "the folder has no documents"),
        (["question=x", "--sett"], 2, "No such option"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    cli: Cli,
    runtime: type[StubRuntime],
    example: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    ended = cli("run", example, *(each.format(empty=tmp_path) for each in arguments))
    assert ended.code == code
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert ended.out == ""
    assert not runtime.made


def test_settings_for_one_command(cli: Cli, runtime: type[StubRuntime], example: Path) -> None:
    cli("run", example, QUESTION, "--set", "workers=3", "--set", 'allowed_modules=["a", "b"]')
    settings = runtime.made[0].settings
    assert settings.workers == 3
    assert settings.allowed_modules == ("a", "b")


def test_a_cluster_by_its_address(cli: Cli, runtime: type[StubRuntime], example: Path) -> None:
    cli("run", example, QUESTION, "--cluster", "tcp://here:8786")
    assert runtime.made[0].cluster == "tcp://here:8786"


def test_a_run_that_fails(cli: Cli, runtime: type[StubRuntime], example: Path) -> None:
    runtime.error = StageError.of("run-1", "answer", 3, EngineError("the replica died"))
    code, out, err = cli("run", example, QUESTION)
    assert code == 8
    assert out.startswith("Dask is a library.\n")
    assert err == "error: stage 'answer': the replica died after 3 attempts\n"


def test_interrupted_while_it_streams(cli: Cli, runtime: type[StubRuntime], example: Path) -> None:
    runtime.interrupt = True
    code, _, err = cli("run", example, QUESTION)
    assert (code, err) == (130, "cancelled\n")
    assert runtime.made[0].closed


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_many_runs_in_order(
    cli: Cli, runtime: type[StubRuntime], example: Path, tmp_path: Path
) -> None:
    inputs, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    inputs.write_text('{"question": "one"}\n\n{"question": "bad"}\n{"question": "two", "k": 5}\n')
    code, out, err = cli(
        "run", example, "k=2", "--inputs", inputs, "--output", output, "--concurrency", "3"
    )
    assert code == 3, "the code of the first error"
    assert out == ""
    assert "2 of 3 runs succeeded" in err
    first, second, third = lines(output)
    assert first == {"inputs": {"question": "one", "k": 2}, "output": {"answer": "ONE"}}
    assert second["error"]["code"] == "input"
    assert third["inputs"] == {"question": "two", "k": 5}
    assert runtime.made[0].calls == [("map", 3)]


def test_many_runs_for_people(
    cli: Cli, runtime: type[StubRuntime], example: Path, tmp_path: Path
) -> None:
    inputs = tmp_path / "in.jsonl"
    inputs.write_text('{"question": "one"}\n{"question": "two", "k": 5}\n')
    code, out, _ = cli("run", example, "--inputs", inputs)
    assert code == 0
    assert out.startswith("question: one\nDask is a library. [1]\n\nsources\n")
    assert "\n\nquestion: two\nk: 5\nDask" in out
    assert [call[1] for call in runtime.made[0].calls] == [
        {"question": "one"},
        {"question": "two", "k": 5},
    ]
    runtime.error = EngineError("died")
    code, _, err = cli("run", example, "--inputs", inputs, "--quiet")
    assert (code, err) == (8, "error: died\n" * 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "x"}\n{"question": }\n', "in.jsonl:2: not JSON"),
        ('["x"]\n', "in.jsonl:1: not a JSON object"),
        ("\n", "in.jsonl: there are no inputs"),
        ('{"question": "x", "kk": 1}\n', "in.jsonl:1: workflow 'rag' has no input 'kk'"),
        ('{"question": 5}\n', "in.jsonl:1: input 'question'"),
    ],
)
def test_a_bad_line_stops_all_before_they_start(
    cli: Cli, runtime: type[StubRuntime], example: Path, tmp_path: Path, text: str, message: str
) -> None:
    inputs = tmp_path / "in.jsonl"
    inputs.write_text(text)
    code, _, err = cli("run", example, "--inputs", inputs)
    assert code == 3
    assert message in err
    assert not runtime.made


def test_inputs_that_cannot_be_read(
    cli: Cli, runtime: type[StubRuntime], example: Path, tmp_path: Path
) -> None:
    assert cli("run", example, "--inputs", tmp_path / "none.jsonl").code == 4
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"question": "é"}'.encode("latin-1"))
    code, _, err = cli("run", example, "--inputs", latin)
    assert (code, "not UTF-8" in err) == (3, True)
