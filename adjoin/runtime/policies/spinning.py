"""How long a model's compute threads wait for their next piece of work before they sleep.

One step of a small model is hundreds of parallel regions, each some hundred microseconds long. A
thread that sleeps between two of them has to be woken: that costs a third of the tokens. A thread
that spins instead takes the core from whatever else wants it, and from the very thread that it
waits for: beside one busy process a spinning model is half as fast as a sleeping one, or slower.
What decides is how long its threads had to wait for a core, which the kernel counts.
"""

from __future__ import annotations

#: Long enough for what lies between two steps; sleeping again costs nothing after that.
PATIENT_MS = 5
#: Seconds that threads waited for a core, a second that one of them computed. Measured with two
#: threads on two cores, while others took nothing, a fifth of a core, a whole one: spinning 0.05,
#: 0.3, 1.8 to 3; sleeping 0.11, 0.5 to 0.7, 0.9 to 1.1.
_TOO_CROWDED = 1.0
_QUIET_AGAIN = 0.76


def patience(current_ms: int, waited: float, ran: float, threads: int) -> int:
    """Milliseconds to spin from now on.

    Args:
        current_ms: what was so while the times were taken.
        waited: seconds, of all threads together, in which they could have run and did not.
        ran: seconds, of all threads together, in which they ran.
        threads: how many of them compute.
    """
    if ran <= 0:
        return current_ms
    crowding = waited / ran * threads
    if current_ms:
        return 0 if crowding > _TOO_CROWDED else current_ms
    return PATIENT_MS if crowding < _QUIET_AGAIN else 0
