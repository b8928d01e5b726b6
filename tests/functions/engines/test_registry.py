from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from adjoin.errors import ModelError
from adjoin.functions import engines


@pytest.fixture
def _fresh() -> Iterator[None]:
    engines.adapters.cache_clear()
    yield
    engines.adapters.cache_clear()


def test_an_unknown_engine_gets_a_suggestion() -> None:
    with pytest.raises(ModelError, match="did you mean 'transformers'"):
        engines.find("transformer")


def test_an_engine_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="extra cpu or cuda"):
        engines.find("vllm")


@pytest.mark.parametrize(
    ("kind", "present", "chosen"),
    [
        ("embed", {"vllm", "torch"}, "transformers"),
        ("generate", {"vllm", "torch"}, "vllm"),
        ("generate", {"torch"}, "transformers"),
    ],
)
def test_the_engine_follows_from_the_kind_and_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, kind: str, present: set[str], chosen: str
) -> None:
    both = {"transformers", "sentence_transformers"}
    monkeypatch.setattr(
        engines, "find_spec", lambda name: object() if name in present | both else None
    )
    assert engines.choose(kind).name == chosen


@pytest.mark.usefixtures("_fresh")
def test_a_package_adds_an_engine_but_cannot_replace_one(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = EntryPoints(EntryPoint(name, "json", "adjoin.engines") for name in ("theirs", "fake"))
    monkeypatch.setattr(engines, "entry_points", lambda group: entries.select(group=group))
    assert engines.find("theirs").module == "json"
    assert engines.find("fake").module == "adjoin.functions.engines.fake"


def test_the_host_imports_nothing_heavy() -> None:
    code = "import sys, adjoin.runtime.host; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    heavy = {"torch", "transformers", "vllm", "faiss", "pyarrow", "distributed", "dask"}
    assert heavy & set(output.split()) == set()
