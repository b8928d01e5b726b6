"""Dask's comm over UCX, as the rest of adjoin needs it; made of that of ``distributed-ucxx`` 0.52.

What is different: a listener on a loopback address is to be reached from this machine only;
whatever goes wrong on a connection is a ``CommClosedError``; a reader that is cancelled is told so.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ucxx
from distributed.comm.core import CommClosedError
from distributed.comm.registry import backends
from distributed_ucxx import UCXXBackend
from distributed_ucxx.ucxx import UCXX, UCXXConnector, UCXXListener

_LOOPBACK = "lo"


def install() -> None:
    """Let Dask use this comm for ``ucx://`` in this process."""
    if not isinstance(backends.get("ucx"), _Backend):
        backends["ucx"] = _Backend()


class _Comm(UCXX):  # type: ignore[misc]  # not typed
    async def read(self, deserializers: Any = None) -> Any:
        try:
            return await super().read(deserializers)
        except CommClosedError as error:
            # Dask's comm takes the cancellation of its reader for an end of the connection.
            if isinstance(error.__cause__, asyncio.CancelledError):
                raise error.__cause__ from None
            raise

    async def write(self, *arguments: Any, **options: Any) -> Any:
        with _as_closed():
            return await super().write(*arguments, **options)

    async def close(self) -> None:
        with suppress(CommClosedError), _as_closed():
            await super().close()

    def closed(self) -> bool:
        """Also when the other side has let go of the endpoint, which has no ``alive`` then."""
        return self._ep is None or self._ep._ep is None or bool(super().closed())


class _Connector(UCXXConnector):  # type: ignore[misc]  # not typed
    comm_class = _Comm

    async def connect(self, *arguments: Any, **options: Any) -> Any:
        with _as_closed():
            return await super().connect(*arguments, **options)


class _Listener(UCXXListener):  # type: ignore[misc]  # not typed
    comm_class = _Comm

    async def start(self) -> None:
        await super().start()
        if self.ip.startswith("127.") or self.ip in ("localhost", "::1"):
            keep_to_loopback(self.port)


class _Backend(UCXXBackend):  # type: ignore[misc]  # not typed
    def get_connector(self) -> Any:
        return _Connector()

    def get_listener(self, *arguments: Any, **options: Any) -> Any:
        return _Listener(*arguments, **options)


@contextmanager
def _as_closed() -> Iterator[None]:
    try:
        yield
    except (ucxx.exceptions.UCXError, AttributeError) as error:
        raise CommClosedError(f"{type(error).__name__}: {error}") from error


def keep_to_loopback(port: int) -> None:
    """Bind this process's listening sockets on a port to the loopback device.

    UCX listens on all addresses whatever address it is given, and Dask unpickles what comes.

    Raises:
        OSError: there is no such socket, or the kernel refuses (before Linux 5.7, without rights).
    """
    found = list(_listening(port))
    try:
        for each in found:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _LOOPBACK.encode())
    finally:
        for each in found:
            each.close()
    if not found:
        raise OSError(f"nothing of this process listens on port {port}")


def _listening(port: int) -> Iterator[socket.socket]:
    """Duplicates of the sockets; closing them leaves the sockets open."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            made = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:  # no socket, or closed meanwhile
            continue
        try:
            if (
                made.type == socket.SOCK_STREAM
                and made.family in (socket.AF_INET, socket.AF_INET6)
                and made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                and made.getsockname()[1] == port
            ):
                yield made
                continue
        except OSError:
            pass
        made.close()
