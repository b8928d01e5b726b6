"""What does it cost to hand values from stage to stage?

Four stages that do nothing, beside each other, from `Runtime.run` to its result; the first makes
384 floats, 50 documents with 50 x 384 floats, or 16 MB. And one hop of 16 MB between two workers of
a machine. The peers of `benchmarks/peers` run the same four stages in an environment of their own,
one after another in the same run (`make peers`); one that is not installed is left out. Each says
its version and settings, which are printed below the figures.

    python -m benchmarks.handover [--peers .venv-peers/bin/python] [--json FILE] [--quick]

LangGraph and Haystack call functions in the caller's own process: no worker can die, and nothing
can be elsewhere. Ray Serve, Dask and adjoin have processes between caller and stages.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import adjoin
from adjoin.settings import Settings
from benchmarks.hop import hops
from benchmarks.peers.payloads import payload, timed
from benchmarks.report import arguments, report

PEERS = Path(__file__).parent / "peers"
PROGRAMS = {
    "ray_serve": ("ray_serve_chain.py",),
    "haystack": ("haystack_chain.py",),
    "langgraph": ("langgraph_chain.py",),
    "langgraph_checkpoint": ("langgraph_chain.py", "checkpoint"),
}


@adjoin.function
async def make(kind: str) -> Any:
    return payload(kind)


@adjoin.function
async def same(value: Any) -> Any:
    return value


@adjoin.function
async def size(value: Any) -> int:
    return len(value)


@adjoin.workflow
def chain(kind: str) -> Any:
    made = make(kind)
    second = same(made)
    third = same(second)
    return size(third)


def ours(*, quick: bool) -> dict[str, float]:
    with adjoin.Runtime(settings=Settings.load(workers=1)) as runtime:
        found = timed(lambda kind: runtime.run(chain, kind=kind), quick=quick)
    return {f"colocated_{kind}_ms": value for kind, value in found.items()}


def peer(python: str, program: tuple[str, ...], *, quick: bool) -> dict[str, Any] | None:
    """What the peer says, with milliseconds for each payload; None when it is not installed."""
    name, *rest = program
    options = [*rest, *(["--quick"] if quick else [])]
    done = subprocess.run(
        [python, str(PEERS / name), *options], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        print(f"{name} left out: {said[-1]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ratios(figures: Mapping[str, float], peers: Mapping[str, Mapping[str, float]]) -> Any:
    """How many times better we are: theirs divided by ours."""
    wanted = {
        "ratio_ray_serve_small": ("ray_serve", "small"),
        "ratio_ray_serve_16mb": ("ray_serve", "16mb"),
        "ratio_dask_tasks_small": ("dask_tasks", "small"),
        "ratio_haystack_rag": ("haystack", "rag"),
        "ratio_langgraph_small": ("langgraph", "small"),
    }
    return {
        key: peers[name][f"colocated_{kind}_ms"] / figures[f"colocated_{kind}_ms"]
        for key, (name, kind) in wanted.items()
        if name in peers
    }


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--peers", default=".venv-peers/bin/python", metavar="PYTHON")
    options = parser.parse_args()
    quick = options.quick
    figures = ours(quick=quick)
    hop = asyncio.run(hops(repeats=20 if quick else 50))
    figures["hop_16mb_ms"] = hop["hop_ms"]
    figures["hop_16mb_preallocated_ms"] = hop["hop_preallocated_ms"]
    programs = {"dask_tasks": (sys.executable, ("dask_chain.py",))}
    if Path(options.peers).exists():
        programs |= {name: (options.peers, program) for name, program in PROGRAMS.items()}
    else:
        print(f"{options.peers} is not there: peers are left out; make peers", file=sys.stderr)
    said = {
        name: found
        for name, (python, program) in programs.items()
        if (found := peer(python, program, quick=quick)) is not None
    }
    peers = {
        name: {f"colocated_{kind}_ms": value for kind, value in found.pop("figures").items()}
        for name, found in said.items()
    }
    peers["dask_comm"] = {"hop_16mb_ms": hop["dask_comm_ms"]}
    peers["pickle_pipe"] = {"hop_16mb_ms": hop["pickle_pipe_ms"]}
    report("handover", {**figures, **ratios(figures, peers)}, peers, options.json, about=said)


if __name__ == "__main__":
    main()
