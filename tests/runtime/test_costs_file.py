"""What was learned outlives the Runtime that learned it; a file that is not right does no harm."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import adjoin
from adjoin import functions as fn
from adjoin.runtime.costs_file import read_costs, write_costs
from adjoin.runtime.policies.costs import Costs, Moved, Observation, learn, learn_inputs, learn_link
from adjoin.types import Usage


@adjoin.workflow
def ask(question: str):  # type: ignore[no-untyped-def]
    return fn.generate(question, model="small", max_tokens=8)


def some() -> Costs:
    costs = learn_inputs(Costs(), ask.graph, {"question": 90})
    usage = Usage(prompt=20, generated=8, seconds=5.0, cold_start_seconds=4.0)
    costs = learn(costs, ask.graph, Observation("generate", 90, 30, usage))
    return learn_link(costs, Moved("h1", "h2", "remote", 1000, 0.002))


def test_costs_come_back_as_they_were(tmp_path: Path) -> None:
    write_costs(tmp_path / "new" / "home", some())
    assert read_costs(tmp_path / "new" / "home") == some()
    assert [path.name for path in (tmp_path / "new" / "home").iterdir()] == ["costs"]


def test_without_a_file_nothing_is_known_and_nothing_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_costs(tmp_path) == Costs()
    assert not caplog.records


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content.replace(b"adjoin-costs-", b"adjoin-costs-9", 1),
        lambda content: content.partition(b"\n")[0],
        lambda content: content + b"\0" * 32_000_000,
    ],
)
def test_a_damaged_file_is_not_used_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    write_costs(tmp_path, some())
    file = tmp_path / "costs"
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert read_costs(tmp_path) == Costs()
    assert "learned anew" in caplog.text
    write_costs(tmp_path, some())
    assert read_costs(tmp_path) == some()


def test_a_home_that_cannot_be_written_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "home").write_text("a file")
    write_costs(tmp_path / "home", some())
    assert "is lost" in caplog.text
