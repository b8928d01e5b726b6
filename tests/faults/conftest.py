"""Each test has a runtime of its own, because it breaks it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adjoin import Runtime, Settings

sys.path.insert(0, str(Path(__file__).parent.parent / "integration"))


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    settings = Settings(home=tmp_path, host_linger_s=1.0, inline_bytes=1024)
    with Runtime(settings=settings) as runtime:
        yield runtime
