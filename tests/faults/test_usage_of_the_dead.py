"""Tokens of replicas and hosts that are killed are on record, as far as their engines came."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from adjoin.dag import ModelSpec
from adjoin.errors import EngineError
from adjoin.functions.engines.base import Account
from adjoin.runtime.host_link import HostLink
from adjoin.runtime.policies.budget import Tab
from adjoin.runtime.usage_records import CallRecord, read
from adjoin.runtime.usage_sweep import Keeper, directory_of
from adjoin.settings import Settings
from adjoin.types import Sampling, Token

SLOW = ModelSpec(source="fake:dies", engine="fake", args={"words": 1000, "interval_s": 0.05})


def on_record(home: Path) -> list[CallRecord]:
    """All calls, as soon as there are any: the host may be sweeping, which keeps us out."""
    found: list[CallRecord] = []
    while not found:
        pieces = Keeper(directory_of(home), 10**9).fetch({})
        found = [each for piece in pieces for each in read(piece.data).records if each.seq]
    return found


@pytest.mark.parametrize("victim", ["replica", "host and replica"])
async def test_what_was_said_before_the_kill_is_counted(tmp_path: Path, victim: str) -> None:
    settings = Settings(home=tmp_path / "home")
    link = await HostLink.attach(tmp_path / "host", settings)
    account = Account(tenant="t", run="r", stage="s", attempt=1)
    model = link.model("m", SLOW, observe=lambda _: None, tab=Tab(account))
    status: dict[str, Any] = {}
    said = 0
    with pytest.raises(EngineError):
        async for piece in model.generate("one two", Sampling(max_tokens=1000)):
            said += isinstance(piece, Token)
            if said == 3:
                status = await link.status()
            if said == 5:
                if victim != "replica":
                    os.kill(status["pid"], signal.SIGKILL)
                os.kill(status["replicas"][0]["pid"], signal.SIGKILL)
    pidfd_gone(status["replicas"][0]["pid"])
    (found,) = on_record(tmp_path / "home")
    assert (found.outcome, found.account.run, found.usage.prompt) == ("interrupted", "r", 2)
    # A step may have ended that nobody was told of any more.
    assert said <= found.usage.generated <= said + 1
    assert on_record(tmp_path / "home") == [found]
    await link.shutdown()


def pidfd_gone(pid: int) -> None:
    """Wait for the end of a process."""
    import select

    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
