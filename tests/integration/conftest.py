"""One runtime for all tests here: a real cluster, a host, replicas, and the fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adjoin import Runtime, Settings


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home: Path = tmp_path_factory.mktemp("home")
    return Settings(home=home, host_linger_s=1.0, inline_bytes=4096, worker_wait_s=30)


@pytest.fixture(scope="session")
def runtime(settings: Settings) -> Iterator[Runtime]:
    with Runtime(settings=settings) as runtime:
        yield runtime
