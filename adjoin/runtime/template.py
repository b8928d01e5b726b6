"""A template: a process that has imported an engine's modules, and forks replicas.

It starts no thread of its own, computes nothing and never initialises CUDA, so that a fork of it is
a sound process; its imported modules are shared with its replicas copy-on-write.
"""

from __future__ import annotations

import gc
import os
import selectors
import socket
import sys
import time
import warnings
from typing import Any

import msgspec

from adjoin.errors import AdjoinError, EngineError, ModelError, to_wire
from adjoin.functions import engines
from adjoin.runtime import process, replica
from adjoin.runtime.wire import Exited, Fork, Forked, TemplateMessage, Warm, WarmFailed

#: Largest message between host and template.
MAX_MESSAGE = 128 * 1024


def main(engine: str, control: socket.socket) -> int:
    """Warm up and fork replicas until the host has gone."""
    process.die_with_parent()
    process.ignore_interrupts()
    began = time.perf_counter()
    try:
        _warm(engine)
    except AdjoinError as error:
        _send(control, WarmFailed(error=to_wire(error)))
        return 1
    _send(control, Warm(seconds=time.perf_counter() - began))
    _Nursery(control).serve()
    return 0


def _warm(engine: str) -> None:
    gc.disable()
    try:
        engines.find(engine).resolve().warm()
    except AdjoinError:
        raise
    except Exception as error:
        import traceback

        traceback.print_exc()
        raise ModelError(
            f"engine {engine!r} cannot be imported: {type(error).__name__}: {error}",
            hint="check the installation of its extra",
        ) from error
    finally:
        gc.enable()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise EngineError(
            f"engine {engine!r} initialised CUDA while it was imported, so that it cannot be forked"
        )
    # The collector would write to every page that replicas share with us.
    gc.collect()
    gc.freeze()


class _Nursery:
    """Forks on request, and reports each child's end."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._children: dict[int, tuple[str, int]] = {}

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._control:
                    self._reap(key.fd)
                elif not self._receive():
                    return

    def _receive(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, 1)
        if not data:
            return False
        link = socket.socket(fileno=fds[0])
        fork = msgspec.msgpack.decode(data, type=Fork)
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Python warns of threads at a fork; the ones here are idle pools of native libraries.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            self._become(fork, link)
        link.close()
        child = os.pidfd_open(pid)
        self._children[child] = (fork.replica, pid)
        self._selector.register(child, selectors.EVENT_READ)
        _send(self._control, Forked(replica=fork.replica, pid=pid))
        return True

    def _become(self, fork: Fork, link: socket.socket) -> None:
        """In the child: let go of what belongs to the template, then be the replica."""
        try:
            self._selector.close()
            self._control.close()
            for child in self._children:
                os.close(child)
            replica.main(fork, link)
        finally:
            os._exit(1)

    def _reap(self, child: int) -> None:
        name, pid = self._children.pop(child)
        self._selector.unregister(child)
        os.close(child)
        _, status = os.waitpid(pid, 0)
        _send(self._control, Exited(replica=name, code=os.waitstatus_to_exitcode(status)))


def _send(control: socket.socket, message: TemplateMessage) -> None:
    try:
        control.send(msgspec.msgpack.encode(message))
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the host has gone, and we go with it


if __name__ == "__main__":
    # Native libraries that were imported may hang or complain in their exit handlers.
    os._exit(main(sys.argv[1], socket.socket(fileno=int(sys.argv[2]))))
