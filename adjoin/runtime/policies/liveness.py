"""Whether a process that says nothing is busy, frozen or gone. Pure.

A closed socket means dead, and needs no policy. Silence does not: a worker that computes may be
late, one that was stopped never answers, and a dead link looks like both. So silence makes a
process suspect, which gets no new work, and it is dead only when its deadline has passed; what the
kernel says of it, where it is on this machine, decides which deadline that is.
"""

from __future__ import annotations

import enum

import msgspec

#: Beats that have to be missing before a process is suspect.
_MISSED = 2.0
#: A worker that is not there for so long gets another nanny, in seconds.
_MISSING_S = 60.0
#: How much longer than others one may be silent that visibly computes.
_PATIENCE = 6.0
#: Of the time of its silence, the share that it has to have computed to count as busy.
_SHARE = 0.05


class Condition(enum.Enum):
    """What the machine says of a process that is silent."""

    UNKNOWN = "unknown"  # on another machine, or waiting for something
    STOPPED = "stopped"  # does not run at all, until somebody lets it
    BUSY = "busy"


class Verdict(enum.Enum):
    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


class Look(msgspec.Struct, frozen=True):
    """The kernel's letter for the state of a process, and the seconds that it has computed."""

    state: str
    cpu_s: float


class Deadlines(msgspec.Struct, frozen=True):
    """``beat_s`` between two signs of life; ``silence_s`` after which a process is dead."""

    beat_s: float
    silence_s: float

    @property
    def suspect_s(self) -> float:
        return min(_MISSED * self.beat_s, self.silence_s)


def condition(before: Look | None, now: Look | None, seconds: float) -> Condition:
    """From two looks, the first ``seconds`` ago; None where the process cannot be looked at.

    Tracing stops (``t``) are not ``STOPPED``: somebody debugs it.
    """
    if now is None:
        return Condition.UNKNOWN
    if now.state == "T":
        return Condition.STOPPED
    if now.state in ("R", "D", "t"):  # waits for a core or a disk, which is no fault of its own
        return Condition.BUSY
    if before is not None and now.cpu_s - before.cpu_s > _SHARE * seconds:
        return Condition.BUSY
    return Condition.UNKNOWN


def judge(silent_s: float, found: Condition, deadlines: Deadlines) -> Verdict:
    """What to hold of a process that has been silent for so long."""
    if silent_s < deadlines.suspect_s:
        return Verdict.ALIVE
    limit = {
        Condition.STOPPED: deadlines.suspect_s,
        Condition.UNKNOWN: deadlines.silence_s,
        Condition.BUSY: _PATIENCE * deadlines.silence_s,
    }[found]
    return Verdict.DEAD if silent_s >= limit else Verdict.SUSPECT


def is_missed(missing_s: float, nanny: Look | None, deadlines: Deadlines) -> bool:
    """Whether a nanny has to be replaced whose worker has not been there for so long.

    It starts a worker that died again, unless it was stopped. While its worker lives, a nanny that
    was stopped does no harm, and to end it would end the worker.
    """
    stopped = condition(None, nanny, 0.0) is Condition.STOPPED
    return missing_s >= (deadlines.suspect_s if stopped else _MISSING_S)


# --- engines --------------------------------------------------------------------------------------

#: A step may take so many times as long as the longest one so far.
_SLOWER = 20.0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine gets on.

    Attributes:
        loading: it is not ready yet; how long that may take is a limit of its own.
        step_s: how long it has been in its present step; 0 between steps and when idle.
        longest_s: the longest step that it has finished.
    """

    loading: bool = False
    step_s: float = 0.0
    longest_s: float = 0.0


def stalled(progress: Progress, silent_s: float, found: Condition, deadlines: Deadlines) -> str:
    """Why a replica is given up, in words that follow its name; empty while it is not.

    A long prompt on a slow machine is one long step. It computes, so that its deadline is
    ``_PATIENCE`` times that of a step in which the engine waits for what never comes; and both grow
    with the longest step that has been seen.

    Args:
        silent_s: since it last answered the host, which another thread of it does than computes.
        deadlines: ``silence_s`` is the shortest deadline of a step.
    """
    if found is Condition.STOPPED and silent_s >= deadlines.suspect_s:
        return f"was stopped, and silent for {silent_s:.1f} s"
    if progress.loading:
        return ""
    limit = max(deadlines.silence_s, _SLOWER * progress.longest_s)
    if found is Condition.BUSY:
        limit *= _PATIENCE
    if progress.step_s >= limit:
        return f"made no progress in a step of {progress.step_s:.1f} s"
    if silent_s >= limit:
        return f"did not answer for {silent_s:.1f} s"
    return ""
