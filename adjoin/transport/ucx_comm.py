"""Dask's comm over UCX, as the rest of adjoin needs it; made of that of ``distributed-ucxx`` 0.52.

What is different: a listener on a loopback address is to be reached from this machine only;
whatever goes wrong on a connection is a ``CommClosedError``; a reader that is cancelled is told so.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ucxx
from distributed.comm.core import CommClosedError
from distributed.comm.registry import backends
from distributed_ucxx import UCXXBackend
from distributed_ucxx.ucxx import (
    UCXX,
    UCXXConnector,
    UCXXListener,
    _deregister_dask_resource,
    _register_dask_resource,
)

from adjoin.transport.loopback import keep_to_loopback


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
            comm = await super().connect(*arguments, **options)
        _keep_running()
        return comm


class _Listener(UCXXListener):  # type: ignore[misc]  # not typed
    comm_class = _Comm

    async def start(self) -> None:
        await super().start()
        _keep_running()
        # UCX listens on all addresses whatever address it is given, and Dask unpickles what comes.
        if self.ip.startswith("127.") or self.ip in ("localhost", "::1"):
            try:
                keep_to_loopback(self.port)
            except BaseException:
                self.stop()
                raise


class _Backend(UCXXBackend):  # type: ignore[misc]  # not typed
    def get_connector(self) -> Any:
        return _Connector()

    def get_listener(self, *arguments: Any, **options: Any) -> Any:
        return _Listener(*arguments, **options)


@functools.cache
def _keep_running() -> None:
    """Keep UCX's threads until this process ends.

    They would stop with the last connection and start with the next one, and stopping holds the
    event loop for up to a second. One of them is no daemon, so it has to be stopped before the
    interpreter waits for it, which is earlier than ``atexit``.
    """
    held = _register_dask_resource()
    threading._register_atexit(_deregister_dask_resource, held)  # type: ignore[attr-defined]


@contextmanager
def _as_closed() -> Iterator[None]:
    try:
        yield
    # An endpoint that was given up meanwhile is None, in a comm or below it.
    except (ucxx.exceptions.UCXError, AttributeError) as error:
        raise CommClosedError(f"{type(error).__name__}: {error}") from error
