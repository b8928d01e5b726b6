"""Find the host of a directory, or start it: race-free, and detached from whoever does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from adjoin.errors import EngineError
from adjoin.runtime.host import LOG, SOCKET
from adjoin.runtime.paths import locked
from adjoin.runtime.wire import HostConfig
from adjoin.settings import Settings
from adjoin.transport.frames import connect

_SPAWN_LOCK = "spawn.lock"


def host_config(settings: Settings) -> HostConfig:
    return HostConfig(
        home=str(settings.home.absolute()),
        threads=settings.replica_threads or len(os.sched_getaffinity(0)),
        sequences=settings.replica_sequences,
        prefix_caching=settings.prefix_caching,
        kv_cache_bytes=int(settings.kv_cache_gb * 2**30),
        load_timeout=settings.load_timeout_s,
        linger=settings.host_linger_s,
        usage_log_bytes=settings.usage_log_bytes,
        beat=settings.heartbeat_s,
        stall=settings.engine_stall_s,
    )


def connect_or_spawn(directory: Path, config: HostConfig) -> socket.socket:
    """A socket connected to the host of ``directory``. Blocks while one starts.

    Raises:
        EngineError: it could not be started, the message names its log; or the directory cannot be
            used.
    """
    path = directory / SOCKET
    _make_private(directory)
    try:
        return connect(path)
    except OSError:
        pass
    with locked(directory / _SPAWN_LOCK):
        try:
            return connect(path)  # somebody was faster
        except OSError:
            _spawn(directory, config)
        try:
            return connect(path)
        except OSError as error:
            raise _failed(directory) from error


def _make_private(directory: Path) -> None:
    """Make the directory ours and nobody else's."""
    try:
        (directory / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
    except OSError as error:
        raise EngineError(
            f"the directory of the host cannot be used: {error.strerror}",
            where=str(directory),
            hint="it must be writable and belong to you alone",
        ) from error


def _spawn(directory: Path, config: HostConfig) -> None:
    """Start a host and wait until it listens."""
    reading, writing = os.pipe()
    try:
        with (directory / LOG).open("wb") as log:
            child = subprocess.Popen(
                [
                    *(sys.executable, "-m", "adjoin.runtime.host", str(directory)),
                    *(msgspec.json.encode(config).decode(), str(writing)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Its own session: Ctrl-C in our terminal is not for it.
                start_new_session=True,
                pass_fds=(writing,),
                # Not the caller's directory, which it would keep busy and import from.
                cwd=directory,
                env=os.environ | {"PYTHONPATH": _python_path()},
            )
    finally:
        os.close(writing)
    # The host outlives us; while we live, we must reap it.
    threading.Thread(target=child.wait, name="host-reaper", daemon=True).start()
    with os.fdopen(reading, "rb") as ready:
        if not ready.read(1):
            raise _failed(directory)


def _python_path() -> str:
    """So that the host imports this very package, also when it is not installed."""
    root = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))


def _failed(directory: Path) -> EngineError:
    log = directory / LOG
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    last = f": {lines[-1]}" if lines else ""
    return EngineError(f"the host could not be started{last}", hint=f"its log is {log}")
