"""Where the processes of one machine find each other, and what killed ones leave there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adjoin.errors import TransportError
from adjoin.transport.frames import connect

_LOCK = "agents.lock"


def runtime_directory(cluster: str) -> Path:
    """The directory of a cluster's host on this machine: private to the user, short enough for a
    socket's path (108 bytes), and gone after a reboot."""
    digest = hashlib.sha256(cluster.encode()).hexdigest()[:16]
    return _base() / digest


def agents_directory(cluster: Path) -> Path:
    """Where in a cluster's directory its agents listen for who wants to read shared memory."""
    return cluster / "agents"


def _base() -> Path:
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return base / f"adjoin-{os.getuid()}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock among the processes of this machine; it ends with its process."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def naming(agents: Path) -> Iterator[None]:
    """Hold while a socket gets its name in here, so that a sweep cannot take it for a stale one.

    Raises:
        OSError: the directory cannot be made or used.
    """
    agents.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(agents / _LOCK):
        yield


def sweep_all_agents() -> None:
    """Sweep the directories of all clusters that this user had on this machine."""
    for agents in _base().glob("*/agents"):
        sweep_agents(agents)


def sweep_agents(agents: Path) -> None:
    """Remove the sockets of agents that were killed, and nothing that somebody listens on."""
    # Suppressed: it is gone meanwhile, since an embedded cluster removes its own.
    with suppress(OSError), locked(agents / _LOCK):
        for path in [*agents.glob("*.new"), *agents.glob("*.shm")]:
            if not _answers(path):
                path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    try:
        connect(path, socket.SOCK_SEQPACKET, wait=False).close()
    except ConnectionRefusedError:
        return False
    except (OSError, TransportError):  # not known to be dead
        return True
    return True
