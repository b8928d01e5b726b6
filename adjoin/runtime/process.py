"""What a process of the machine's process tree does to itself. Linux."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

from adjoin.runtime.policies.liveness import Look

_PR_SET_PDEATHSIG = 1
#: Added to the score by which the kernel picks a victim when memory runs out.
_OOM_SCORE = 500


def die_with_parent() -> None:
    """Be killed when the parent dies, also while this process is busy importing or computing."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def ignore_interrupts() -> None:
    """Ctrl-C and hang-ups are for the process that the user started."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def redirect_output(log: Path) -> None:
    """Send what this process prints, Python and native code alike, to a fresh file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def volunteer_for_out_of_memory() -> None:
    """A replica is the cheapest thing to lose: let the kernel take it before the rest."""
    Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def look(pid: int) -> Look | None:
    """The state of a process and the time that all its threads computed; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return None
    return Look(state=fields[0], cpu_s=ticks / os.sysconf("SC_CLK_TCK"))


def parent(pid: int) -> int:
    """The id of the parent of a process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it has gone. Pages shared with others count in full."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
