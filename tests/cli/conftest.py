"""The command line as a call, and a runtime that starts nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from stub_runtime import PASSAGES, Cli, Ended, StubRuntime

import adjoin
from adjoin.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "rag" / "workflow.yaml"


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    """The example's module is not left to other tests, which have an app of their own."""
    yield
    sys.modules.pop("app", None)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        return Ended(code, *capsys.readouterr())

    return call


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StubRuntime]]:
    class Stub(StubRuntime):
        outputs: Mapping[str, Any] = {"answer": "Dask is a library. [1]", "sources": PASSAGES}
        made: ClassVar[list[StubRuntime]] = []

    monkeypatch.setattr(adjoin, "Runtime", Stub)
    yield Stub
    assert all(made.closed for made in Stub.made)


@pytest.fixture
def example() -> Path:
    return EXAMPLE
