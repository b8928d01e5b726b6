"""The compute threads of a process of its own, with the OpenMP that replicas get."""

import os
import subprocess
import sys

import pytest

from adjoin.runtime.openmp import _library, variables

SCRIPT = """
import ctypes, threading, time
from adjoin.runtime import openmp

threads = openmp.ComputeThreads(2)
patience = ctypes.CDLL(None).kmp_get_blocktime
print(patience())
end = time.monotonic() + 20
while not patience() and time.monotonic() < end:
    sum(range(10_000))
    threads.look()
print(patience())
"""


@pytest.mark.skipif(_library() is None, reason="Intel's OpenMP comes with vLLM on x86")
def test_threads_sleep_at_first_and_spin_when_they_are_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | variables(1),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["0", "5"], done.stderr


def test_what_was_preloaded_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "libother.so")
    assert variables(2).get("LD_PRELOAD", "libother.so").endswith("libother.so")
