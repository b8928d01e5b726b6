"""The command line as a service's client, and the keys of a service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from texts import ENDLESS, SEARCH, text

from adjoin.cli import main
from adjoin.cli.remote import event_line, values_of
from adjoin.errors import InputError


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Ended]
WRITER = ENDLESS.replace("endless", "writer").replace("words: 100000, interval_s: 0.01", "words: 5")


@pytest.fixture
def cli(served: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("ADJOIN_URL", served.url)
    monkeypatch.setenv("ADJOIN_API_KEY", served.key("terminal"))
    monkeypatch.setenv("ADJOIN_ALLOWED_MODULES", '["gateway_flows"]')

    def call(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        return Ended(code, *capsys.readouterr())

    return call


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "workflow.yaml"
    made.write_text(text("typed"))
    yield made


def test_deploy_invoke_ps_logs_usage(cli: Cli, file: Path) -> None:
    assert "revision 1" in cli("deploy", file).err
    assert "already" in cli("deploy", file).err
    assert cli("invoke", "typed", "text=hello") == Ended(0, "HELLO\n", "")
    answered = json.loads(cli("invoke", "typed", "text=hello", "--json").out)
    assert answered["outputs"] == {"result": "HELLO"}
    run = cli("invoke", "typed", "text=hello", "--async").out.strip()
    told = cli("logs", run).out
    assert "StageStarted" in told
    assert told.splitlines()[-1].split()[2] == "RunCompleted"
    lines = [json.loads(line) for line in cli("logs", run, "--json").out.splitlines()]
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    listed = cli("ps").out
    assert "typed" in listed and run in listed
    assert json.loads(cli("ps", "--json").out)["workflows"][0]["name"] == "typed"
    (used,) = json.loads(cli("usage", "--json").out)
    assert (used["workflow"], used["runs"], used["failed"]) == ("typed", 3, 0)
    assert "typed" in cli("usage").out


def test_an_answer_is_printed_once_as_it_comes(served: Any, cli: Cli) -> None:
    with served.client("terminal") as client:
        assert client.put("/api/v1/workflows/writer", content=WRITER).status_code == 201
    ended = cli("invoke", "writer", "question=one two three four five")
    assert (ended.code, ended.out.split()) == (0, ["one", "two", "three", "four", "five"])


def test_passages_are_shown_as_sources(served: Any, cli: Cli) -> None:
    with served.client("terminal") as client:
        client.put("/api/v1/collections/animals", json={"embedding": "fake:"})
        documents = {"documents": [{"text": "cats purr", "source": "cat.md"}]}
        client.post("/api/v1/collections/animals/documents", json=documents)
        client.put("/api/v1/workflows/search", content=SEARCH)
    shown = cli("invoke", "search", "question=cats purr")
    assert "[1] 1.000  cat.md" in shown.out
    assert "{" not in shown.out


def test_errors_keep_their_codes(cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(text("failing", "fail"))
    cli("deploy", file)
    failed = cli("invoke", "failing", "text=this")
    assert (failed.code, failed.out) == (8, "")
    assert "stage 'only'" in failed.err and failed.err.count("\n") == 1
    assert cli("invoke", "failing").code == 3
    assert cli("invoke", "failing", "txt=a").code == 3
    assert cli("invoke", "nothing").code == 4
    assert cli("logs", "nothing").code == 4
    as_json = json.loads(cli("invoke", "failing", "text=this", "--json").out)
    assert as_json["error"]["details"]["stage"] == "only"
    monkeypatch.setenv("ADJOIN_API_KEY", "adj_wrong")
    assert cli("ps").code == 5
    monkeypatch.delenv("ADJOIN_API_KEY")
    assert cli("ps").code == 5
    assert cli("ps", "--url", "http://127.0.0.1:9").code == 11
    assert cli("ps", "--url", "ftp://x").code == 3


def test_keys_are_made_listed_and_revoked(cli: Cli, tmp_path: Path) -> None:
    here = ("--set", f"home={tmp_path}")
    assert "there are no keys" in cli("keys", "list", *here).err
    made = cli("keys", "create", "--tenant", "acme", "--scope", "deploy", "--days", "1", *here)
    key = made.out.strip()
    assert key.startswith("adj_")
    listed = cli("keys", "list", "--json", *here)
    (only,) = json.loads(listed.out)
    assert (only["tenant"], only["scopes"]) == ("acme", ["deploy"])
    assert key not in listed.out
    assert cli("keys", "revoke", only["id"], *here).code == 0
    assert cli("keys", "revoke", only["id"], *here).code == 4
    assert cli("keys", "create", "--scope", "everything", *here).code == 3


def test_inputs_are_read_by_their_type() -> None:
    properties = {"question": {"type": "string"}, "k": {"type": "integer"}}
    assert values_of(properties, ["question=1", "k=2"]) == {"question": "1", "k": 2}
    for wrong in (["k=two"], ["k=1", "k=2"], ["other=1"], ["k"]):
        with pytest.raises(InputError):
            values_of(properties, wrong)


def test_an_event_is_one_line_whatever_it_says() -> None:
    token = {"text": "a\nb\x1b[2J"}
    event = {"at": 1.5, "stage": "s", "body": {"type": "Tokens", "tokens": [token]}}
    line = event_line(event)
    assert "\n" not in line and "\x1b" not in line
