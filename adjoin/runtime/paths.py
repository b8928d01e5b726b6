"""Where the processes of one machine find each other."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def runtime_directory(cluster: str) -> Path:
    """The directory of a cluster's host on this machine: private to the user, short enough for a
    socket's path (108 bytes), and gone after a reboot."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    digest = hashlib.sha256(cluster.encode()).hexdigest()[:16]
    return base / f"adjoin-{os.getuid()}" / digest
