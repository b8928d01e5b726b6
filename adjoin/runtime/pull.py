"""The channel ``remote``: a call to the owner's agent over Dask's comm, and how it is answered."""

from __future__ import annotations

from typing import Any

from adjoin.runtime import protocol as p
from adjoin.runtime.conversation import answered, receive_value
from adjoin.transport.channel import Find
from adjoin.transport.codec import Encoded, on_host
from adjoin.transport.remote import Channel


class RemoteChannel:
    """Fetches from any agent of the cluster; ``pool`` is a worker's pool of connections."""

    name = "remote"

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def fetch(self, id: str, owner: str) -> Encoded:
        channel = await Channel.open(self._pool, owner, "adjoin_call", p.pack(p.Pull(ref=id)))
        return await receive_value(channel)

    async def close(self) -> None:
        """The connections are the worker's."""


async def answer_pull(channel: Channel, request: p.Pull, find: Find) -> None:
    """Send the value behind an id, or why it cannot be sent."""
    buffers: tuple[Any, ...] = ()

    async def look_up() -> p.Message:
        nonlocal buffers
        value = find(request.ref)
        buffers = on_host(value.buffers)
        return p.Reply(value=Encoded(value.header))

    answer = await answered(look_up())
    await channel.send([p.pack(answer)], buffers)
