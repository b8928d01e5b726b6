"""An engine is asked for its figures at most each second, and may fail at it."""

from __future__ import annotations

import msgspec
import pytest

from adjoin.functions.engines.families import Family, counter
from adjoin.runtime.told import Told


def test_it_gathers_at_most_each_second_and_survives_what_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now, asked = 100.0, 0

    def gather() -> tuple[Family, ...]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise RuntimeError("no registry")
        return (counter("e:x", "", asked),)

    told = Told(gather, lambda: now)

    def value() -> float:
        (family,) = msgspec.msgpack.decode(told.packed(), type=tuple[Family, ...])
        return family.samples[0].value

    assert value() == 1
    now = 100.9
    assert value() == 1
    now = 101.0
    assert told.packed() == b""
    assert "no registry" in capsys.readouterr().out
    now = 102.0
    assert (value(), asked) == (3, 3)
