from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import adjoin.cli.exits as exits
from adjoin.cli import main
from adjoin.cli.exits import EXIT_CODES
from adjoin.errors import AdjoinError, InputError, ModelError

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


def tree(kind: type[AdjoinError] = AdjoinError) -> set[type[AdjoinError]]:
    return {kind}.union(*(tree(child) for child in kind.__subclasses__()))


def test_every_error_has_a_documented_code() -> None:
    assert {kind.exit_code for kind in tree()} <= EXIT_CODES.keys()


def test_the_documentation_lists_the_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code): what for code, what in rows} == EXIT_CODES


def test_help_lists_the_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"{code} " in out for code in EXIT_CODES)


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def invoke(_: object) -> int:
        raise error

    monkeypatch.setattr(exits, "_invoke", invoke)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("k is\n0", where="here", hint="choose 1"), 3, "error: here: k is 0; choose 1"),
        (ModelError("no files"), 9, "error: no files"),
        (KeyboardInterrupt(), 130, "cancelled"),
        (ValueError("oh"), 1, "error: internal error: ValueError: oh; ADJOIN_DEBUG=1 shows where"),
        (InputError("\x1b[2Jgone"), 3, "error: [2Jgone"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    raising(monkeypatch, error)
    assert main([]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_debugging_shows_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADJOIN_DEBUG", "1")
    raising(monkeypatch, ValueError("oh"))
    assert main([]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_json_gets_the_error_as_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, ModelError("no files", where="m"))
    assert main(["models", "list", "--json"]) == 9
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["code"] == "model"
    assert err == "error: m: no files\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rum"], "adjoin --help"),
        (["run"], "adjoin run --help"),
        (["models", "pull"], "adjoin models pull --help"),
        (["collections", "search", "c", "q", "-k", "0"], "adjoin collections search --help"),
    ],
)
def test_a_wrong_command_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.rstrip().endswith(says)
    assert err.count("\n") == 1


def test_json_gets_a_wrong_command_line_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["code"] == "usage"
    assert err.startswith("error: ")


def test_no_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: adjoin [OPTIONS] COMMAND")
    assert err.count("\n") > 20
    assert main(["collections"]) == 2
    assert "search" in capsys.readouterr().err


def test_termination_leaves_through_the_context_managers(monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Event()

    def invoke(_: object) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            left.set()
        return 0

    monkeypatch.setattr(exits, "_invoke", invoke)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 143
    assert left.is_set()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "arguments", [["schema"], ["models", "list"], ["models", "list", "--json"]]
)
def test_a_reader_that_goes_away(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "adjoin.cli", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_help_and_validate_load_nothing_heavy() -> None:
    code = (
        "import sys; from adjoin.cli import main; example = sys.argv[1]\n"
        "assert main(['--help']) == 0 and main(['validate', example]) == 0\n"
        "heavy = {'dask', 'distributed', 'faiss', 'pyarrow', 'torch', 'transformers', 'vllm'}\n"
        "loaded = heavy & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    example = Path(__file__).parents[2] / "examples" / "rag" / "workflow.yaml"
    done = subprocess.run([sys.executable, "-c", code, example], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
