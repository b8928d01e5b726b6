"""How values pass from the process that made them to another one: the seam of the channels.

The process that made a value publishes it under a random id, in a table that it alone can read: a
run's segment has such a table. A channel fetches what is behind an id from the owner's process.
Which channels there are: ``local`` (this process), ``shm`` (this machine, by shared memory, with
``cuda_ipc`` for what is in a GPU's memory), ``remote`` (anywhere, over Dask's comm).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Protocol

from adjoin.errors import TransportError
from adjoin.transport.codec import Encoded

#: The value that this process published under an id; raises :class:`TransportError` for any other.
Find = Callable[[str], Encoded]


class Unreachable(TransportError):
    """This channel cannot carry the value; another one may."""


class ValueChannel(Protocol):
    """One way to fetch values."""

    name: str

    async def fetch(self, id: str, owner: str) -> Encoded:
        """The value behind an id of the process at this address.

        Its buffers can be read only, and stay as they are for as long as anything views them, even
        when the owner has closed the value's segment or has died.

        Raises:
            Unreachable: the owner is not to be reached by this channel, or has no room.
            TransportError: there is no such value, or the owner is gone.
        """
        ...

    async def close(self) -> None: ...


class Published:
    """What a process has handed out."""

    def __init__(self) -> None:
        self._values: dict[str, Encoded] = {}

    def publish(self, value: Encoded) -> str:
        """An opaque id, valid until it is withdrawn."""
        id = secrets.token_urlsafe(16)
        self._values[id] = value
        return id

    @property
    def empty(self) -> bool:
        return not self._values

    def find(self, id: str) -> Encoded | None:
        return self._values.get(id)

    def withdraw_all(self) -> None:
        self._values.clear()


class LocalChannel:
    """What this process published itself."""

    name = "local"

    def __init__(self, address: str, find: Find) -> None:
        self._address = address
        self._find = find

    async def fetch(self, id: str, owner: str) -> Encoded:
        if owner != self._address:
            raise Unreachable("it belongs to another process", where=owner)
        return self._find(id)

    async def close(self) -> None:
        """Nothing is open."""
