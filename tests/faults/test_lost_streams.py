"""kill -9 of a worker whose stage was being read."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import stream_flows as flows

from adjoin import Runtime
from adjoin.types import Progress, RunPlanned


def test_a_reader_begins_again_when_its_maker_is_lost(runtime: Runtime, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    victim = 0
    placement: dict[str, str] = {}
    for event in runtime.submit(flows.lost, n=40, gate=str(gate)).events():
        if isinstance(event.body, RunPlanned):
            placement = event.body.placement
        body = event.body
        if isinstance(body, Progress) and body.done == 20 and not victim:
            members = {worker["name"]: worker["pid"] for worker in runtime.status()["workers"]}
            victim = members[placement["made"]]
            gate.unlink()
            os.kill(victim, signal.SIGKILL)
    result = event.body.outputs["output"]  # type: ignore[union-attr]
    assert len(result["values"]) == 40
    assert victim and victim not in result["values"]
