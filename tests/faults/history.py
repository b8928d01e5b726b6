"""What clients of a service saw, and what that proves.

Every call is written down when it is sent and when it is answered. A call without an answer is
*unknown*: it may have been done or not. The checker knows the oracle's result of each request.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["invoked", "ok", "failed", "unknown"]
#: A run that has ended is in one of these, for good.
ENDS = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass
class Call:
    """One request. ``run`` is the id it was answered with; times are in seconds."""

    key: str
    expected: Any
    began: float
    outcome: Outcome = "invoked"
    ended: float = 0.0
    run: str = ""
    answer: Any = None


@dataclass
class History:
    calls: list[Call] = field(default_factory=list)
    #: By run, each state that somebody saw it in, in order.
    seen: dict[str, list[str]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def invoke(self, key: str, expected: Any) -> Call:
        call = Call(key, expected, time.monotonic())
        with self._lock:
            self.calls.append(call)
        return call

    def close(self, call: Call, outcome: Outcome, run: str = "", answer: Any = None) -> None:
        call.outcome, call.run, call.answer = outcome, run, answer
        call.ended = time.monotonic()

    def saw(self, run: str, state: str, result: Any = None) -> None:
        with self._lock:
            states = self.seen.setdefault(run, [])
            if not states or states[-1] != state:
                states.append(state)
            if state == "succeeded":
                self.results[run] = result

    def problems(self) -> list[str]:
        """What breaks a promise; empty when the history proves that none was broken."""
        found = []
        by_key: dict[str, set[str]] = {}
        for call in self.calls:
            if call.outcome == "ok":
                by_key.setdefault(call.key, set()).add(call.run)
                found += self._of_accepted(call)
        found += [f"key {k} has runs {r}" for k, r in by_key.items() if len(r) > 1]
        for run, states in self.seen.items():
            ends = [state for state in states if state in ENDS]
            if len(ends) > 1 or (ends and states[-1] not in ENDS):
                found.append(f"run {run} was seen as {states}")
        return found

    def _of_accepted(self, call: Call) -> list[str]:
        """An accepted run ends once, with the oracle's result."""
        states = self.seen.get(call.run, [])
        if not states or states[-1] not in ENDS:
            return [f"accepted run {call.run} has not ended: {states}"]
        if states[-1] == "succeeded" and self.results[call.run] != call.expected:
            return [f"run {call.run} gave {self.results[call.run]!r}, not {call.expected!r}"]
        if states[-1] != "succeeded":
            return [f"run {call.run} ended as {states[-1]}"]
        return []


def events_are_right(events: list[tuple[int, str, dict[str, Any]]]) -> list[str]:
    """What is wrong with a run's events: gaps, several ends, something after the end, results that
    were recorded twice."""
    found = []
    numbers = [number for number, _, _ in events]
    if numbers != list(range(len(numbers))):
        found.append(f"numbers {numbers}")
    ends = [n for n, kind, _ in events if kind in ("RunCompleted", "RunFailed", "RunCancelled")]
    if ends != numbers[-1:]:
        found.append(f"ends at {ends} of {len(numbers)}")
    done = [event["stage"] for _, kind, event in events if kind == "StageCompleted"]
    if len(done) != len(set(done)):
        found.append(f"completed twice: {done}")
    return found
