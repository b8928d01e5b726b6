"""Waiting for what comes by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


def until(true: Callable[[], Any], what: str = "") -> None:
    """Look again and again; a test's own time limit ends one that waits in vain."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.005)
