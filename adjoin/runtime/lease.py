"""Keeps the host of an embedded cluster while all its workers are gone."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from adjoin.errors import TransportError
from adjoin.runtime.host import SOCKET
from adjoin.transport.frames import connect


class HostLease:
    """A connection to the host that says nothing: a host ends some time after its last one.

    Workers that are started again take longer than a host may linger, and its models longer still.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / SOCKET
        self._held: socket.socket | None = None

    def renew(self) -> None:
        """Take hold of the host that an agent has started since, if it has. Does not wait."""
        if self._held is not None and _ended(self._held):
            self.close()
        if self._held is None and self._path.exists():
            with suppress(OSError, TransportError):
                self._held = connect(self._path, wait=False)

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


def _ended(held: socket.socket) -> bool:
    try:
        return not held.recv(4096, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
