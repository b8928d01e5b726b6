"""Keeps what listens on all addresses to this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

_DEVICE = "lo"


def keep_to_loopback(port: int) -> None:
    """Bind this process's listening TCP sockets of a port to the loopback device. Linux.

    For libraries that listen on all addresses whatever address they are given.

    Raises:
        OSError: there is no such socket, or the kernel refuses (before 5.7 it wants rights).
    """
    found = list(_listening(port))
    try:
        for each in found:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _DEVICE.encode())
    finally:
        for each in found:
            each.close()
    if not found:
        raise OSError(f"nothing of this process listens on port {port}")


def _listening(port: int) -> Iterator[socket.socket]:
    """Duplicates of the sockets; closing them leaves the sockets open."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            made = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:  # closed meanwhile
            continue
        if _listens(made, port):
            yield made
        else:
            made.close()


def _listens(sock: socket.socket, port: int) -> bool:
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return bool(listens) and sock.getsockname()[1] == port
