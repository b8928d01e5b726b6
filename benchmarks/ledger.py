"""What counting costs: a step loop with its usage log, and one that forgets, on the same requests.

    python -m benchmarks.ledger

Times the tally itself: microseconds of a step with so many requests in the engine, and of a request
from its beginning to its record. The share of a real request is that over the engine's own time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from adjoin.functions.engines.base import Account, Delta, Finished, GenerateRequest
from adjoin.runtime.usage_log import UsageLog
from adjoin.types import Sampling, Token, Usage

_STEPS = 200
_REPEATS = 5
_ACCOUNT = Account("tenant", "workflow", "0" * 64, "r" * 16, "stage", 1, "stage", 1, "model")


def measure(directory: Path, requests: int) -> tuple[float, float]:
    """Microseconds of a step, and of a request's beginning and end together."""
    log = UsageLog(directory, requests)
    asked = [
        GenerateRequest(id=str(n), prompt="x", sampling=Sampling(), account=_ACCOUNT)
        for n in range(requests)
    ]
    usage = Usage(prompt=9, generated=5)
    deltas = [Delta(id=each.id, tokens=(Token("x", (1,)),), usage=usage) for each in asked]
    began = time.perf_counter()
    for each in asked:
        log.begin(each)
    entered = time.perf_counter()
    for _ in range(_STEPS):
        log.settle(0.01, deltas)
    stepped = time.perf_counter()
    for each in asked:
        log.settle(0.01, [Finished(id=each.id, usage=usage)])
    ended = time.perf_counter()
    log.close()
    around = (entered - began + ended - stepped) / requests
    return (stepped - entered) / _STEPS * 1e6, around * 1e6


def main() -> None:
    print("requests   µs a step   µs a request")
    for requests in (1, 16, 128):
        with tempfile.TemporaryDirectory() as name:
            found = [measure(Path(name), requests) for _ in range(_REPEATS)]
        step, request = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"{requests:8}  {step:10.1f}  {request:13.1f}")


if __name__ == "__main__":
    main()
