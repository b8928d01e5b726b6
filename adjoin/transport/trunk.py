"""Many conversations over one connection.

Segments that run beside each other, as those of sixteen streams do, all have something to say
whenever a model has made its next tokens. On a connection each, that is a system call and a turn of
the loop each, in both processes, at the very moment at which the model wants the cores. On a
:class:`Trunk` it is one of each.

A conversation is a :class:`Line`, known by a number that whoever opens it counts up. What comes for
a line that has ended is dropped: both sides may end it, and the other may not have heard yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import msgspec
from distributed.comm import Comm
from distributed.core import ConnectionPool

from adjoin.errors import TransportError
from adjoin.transport.eager import started
from adjoin.transport.remote import connect

#: Seconds that what nobody acts on may wait for company.
_LINGER_S = 0.02
#: By number, what is said on a line; nothing where it ends.
Parcel: TypeAlias = tuple[int, list[bytes]]
Accept: TypeAlias = Callable[["Line"], Awaitable[None]]

_decoder = msgspec.msgpack.Decoder(list[Parcel])


class Line:
    """One end of a conversation. Every method raises :class:`TransportError` when it is over."""

    def __init__(self, trunk: Trunk, number: int) -> None:
        self._trunk = trunk
        self._number = number
        self._heard: list[bytes] = []
        self._news = asyncio.Event()
        self._over: TransportError | None = None

    def send(self, message: bytes, *, linger: bool = False, now: bool = False) -> None:
        """Say something, without waiting.

        Args:
            linger: nobody acts on it, so that it can wait until there is something that somebody
                does.
            now: do not wait for what others may say in this turn of the loop.
        """
        if self._over is not None:
            raise self._over
        self._trunk.put(self._number, [message], linger=linger, now=now)

    async def receive(self) -> list[bytes]:
        """What was said since the last time, at least one message."""
        while not self._heard:
            if self._over is not None:
                raise self._over
            self._news.clear()
            await self._news.wait()
        heard, self._heard = self._heard, []
        return heard

    def end(self) -> None:
        """Say and hear no more."""
        if self._over is None:
            self._trunk.put(self._number, [], linger=True)
            self.break_off("the conversation is over")

    def hear(self, messages: list[bytes]) -> None:
        self._heard += messages
        self._news.set()

    def break_off(self, why: str) -> None:
        self._trunk.forget(self._number)
        self._over = TransportError(why, where=self._trunk.address)
        self._news.set()


class Trunk:
    """One end of the connection.

    Args:
        accept: carries on a conversation that the other side opens; without it, it opens none.
        pool: where the connection is from, which gets its place back.
    """

    def __init__(
        self,
        comm: Comm,
        address: str = "",
        accept: Accept | None = None,
        pool: ConnectionPool | None = None,
    ) -> None:
        self.address = address
        self._pool = pool
        self._comm = comm
        self._accept = accept
        self._lines: dict[int, Line] = {}
        self._last = 0
        self._pending: list[Parcel] = []
        self._wake = asyncio.Event()
        self._under_way: Awaitable[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._why = ""

    @property
    def broken(self) -> bool:
        return bool(self._why)

    def open(self, message: bytes) -> Line:
        """Begin a conversation."""
        if self.broken:
            raise TransportError(self._why, where=self.address)
        self._last += 1
        line = self._lines[self._last] = Line(self, self._last)
        line.send(message, now=True)
        return line

    async def carry(self) -> None:
        """Carry messages both ways until the connection is gone, and the conversations with it."""
        sender = asyncio.ensure_future(self._send_all())
        try:
            while True:
                received = await self._comm.read()
                if not isinstance(received, dict) or "parcels" not in received:
                    raise TransportError("there is no agent on this worker", where=self.address)
                self._deliver(_decoder.decode(received["parcels"]))
        except (OSError, TransportError, msgspec.MsgspecError) as error:
            self._why = f"connection lost: {error}"
        finally:
            self._why = self._why or "connection lost"
            sender.cancel()
            self._comm.abort()
            if self._pool is not None:
                self._pool.reuse(self.address, self._comm)
            for line in list(self._lines.values()):
                line.break_off(self._why)
            await asyncio.gather(sender, *self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Have :meth:`carry` end."""
        self._comm.abort()

    def put(
        self, number: int, messages: list[bytes], *, linger: bool = False, now: bool = False
    ) -> None:
        """To be sent, in this order."""
        self._pending.append((number, messages))
        if now:
            self._write()
        if not linger:
            self._wake.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LINGER_S, self._no_longer)

    def _no_longer(self) -> None:
        """It runs on when what it was set for is sent: setting one a message takes longer than
        sending another one sooner than it had to be."""
        self._timer = None
        if self._pending:
            self._wake.set()

    def forget(self, number: int) -> None:
        self._lines.pop(number, None)

    async def _send_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._write()
            while (rest := self._under_way) is not None:
                try:
                    await rest
                except OSError:  # whoever reads notices it as well, and says so to all
                    self._comm.abort()
                    return
                self._under_way = None
                self._write()

    def _write(self) -> None:
        """Begin to send what is pending, unless something is on its way: the rest follows that."""
        if self._pending and self._under_way is None:
            pending, self._pending = self._pending, []
            written = self._comm.write({"parcels": msgspec.msgpack.encode(pending)})
            self._under_way = started(written)

    def _deliver(self, parcels: Sequence[Parcel]) -> None:
        for number, messages in parcels:
            line = self._lines.get(number)
            if line is not None and messages:
                line.hear(messages)
            elif line is not None:
                line.break_off("the other side has left")
            elif number > self._last and messages and self._accept is not None:
                self._last = number
                line = self._lines[number] = Line(self, number)
                line.hear(messages)
                self._start(self._accept(line))

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def plant(pool: ConnectionPool, address: str, operation: str) -> Trunk:
    """Ask the agent there for a trunk; raises :class:`TransportError` when it is not reached."""
    comm = await connect(pool, address)
    try:
        await comm.write({"op": operation})
    except BaseException as error:
        comm.abort()
        pool.reuse(address, comm)
        if isinstance(error, OSError):
            raise TransportError(f"connection lost: {error}", where=address) from None
        raise
    return Trunk(comm, address, pool=pool)
