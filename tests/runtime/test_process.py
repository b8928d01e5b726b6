"""What processes do to themselves, each in a child that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from host_fixtures import Death

from adjoin.runtime import process

_CHILD = """
import os
from adjoin.runtime import process
if os.fork() == 0:
    process.die_with_parent()
    print(os.getpid(), flush=True)
    while True:  # busy, as while importing: no loop that could see a socket close
        pass
os.wait()
"""


async def test_a_busy_process_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _CHILD], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        death = Death(child)
        os.kill(parent.pid, signal.SIGKILL)
    try:
        await death.wait()
    finally:
        if Path(f"/proc/{child}").exists():
            os.kill(child, signal.SIGKILL)


def test_output_of_python_and_of_children_goes_to_a_fresh_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old")
    code = (
        "import os, sys; from pathlib import Path; from adjoin.runtime import process\n"
        "process.redirect_output(Path(sys.argv[1]))\n"
        "print('python', flush=True); os.system('echo shell >&2')"
    )
    found = subprocess.run([sys.executable, "-c", code, log], capture_output=True, check=True)
    assert (found.stdout, found.stderr) == (b"", b"")
    assert log.read_text() == "python\nshell\n"


def test_resident_memory_is_that_of_the_process_and_zero_when_it_has_gone() -> None:
    assert process.resident_bytes(os.getpid()) == pytest.approx(
        int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"), rel=0.1
    )
    assert process.resident_bytes(2**22 + 1) == 0
