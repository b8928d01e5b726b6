"""A replica as its host sees it, without a template."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from adjoin.errors import InputError, to_wire
from adjoin.functions.engines.base import LoadSpec
from adjoin.runtime.children import Replica
from adjoin.runtime.wire import Fork, LoadFailed
from adjoin.transport.frames import pack


class TemplateOfOneThatIsOver:
    """Its replica says why it cannot load, and is over and reaped before the host hears of it."""

    async def fork(self, fork: Fork, theirs: socket.socket) -> tuple[int, asyncio.Future[int]]:
        theirs.send(pack(LoadFailed(error=to_wire(InputError("did you mean 'dimension'")))))
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        code.set_result(0)
        return child.pid, code


async def test_one_that_is_over_before_it_is_looked_at_still_says_why(tmp_path: Path) -> None:
    spec = LoadSpec(model="m", engine="fake")
    replica = Replica(
        Fork(replica="r", spec=spec, socket=str(tmp_path / "s"), log="log", usage=str(tmp_path))
    )
    loaded = await replica.start(TemplateOfOneThatIsOver())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean 'dimension'"):
        await asyncio.wait_for(loaded, 10)
    await asyncio.wait_for(replica.died.wait(), 10)
