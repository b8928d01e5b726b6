"""Servers as processes of their own: started, waited for, ended with all that they started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.load import wait_until_up

_STOP_S = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def serving(
    command: Sequence[str],
    ready: str,
    environment: Mapping[str, str] | None = None,
    *,
    speaks: bool = False,
) -> AsyncIterator[dict[str, Any]]:
    """Run a server until the block ends; gives the JSON object that it prints.

    Args:
        ready: a URL that answers 200 when the server is up.
        speaks: whether it prints such an object, and is only then up.

    Raises:
        TimeoutError: it did not come up; its last output is in the message.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | dict(environment or {}),
        )
        try:
            try:
                await wait_until_up(ready, lambda: process.poll() is None)
                while speaks and not _said(output) and process.poll() is None:
                    await asyncio.sleep(0.1)
            except TimeoutError as error:
                said = _read(output).splitlines()[-5:]
                raise TimeoutError(f"{Path(command[0]).name}: {error}: {said}") from None
            yield _said(output)
        finally:
            await asyncio.to_thread(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with contextlib.suppress(ProcessLookupError):  # what it started and left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode(errors="replace")


def _said(output: IO[bytes]) -> dict[str, Any]:
    for line in _read(output).splitlines():
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    return {}
