"""The streams of one segment: those that its stages make, and those that it reads from others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol, get_args

from adjoin.dag import Graph, Stage
from adjoin.errors import AdjoinError, TransportError
from adjoin.runtime import protocol as p
from adjoin.runtime.execution import sealed
from adjoin.runtime.results import return_annotation
from adjoin.runtime.sizes import nbytes_of
from adjoin.transport import codec
from adjoin.transport.channel import Published
from adjoin.transport.codec import Encoded
from adjoin.transport.stream import Source, Stream, StreamLost, lost

#: Pieces in one message, and bytes of those that are in the message itself.
_BATCH = 256
_BATCH_BYTES = 1 << 20


class World(Protocol):
    """What streams need of the process they run in."""

    address: str

    async def pull(self, ref: p.Ref, run: str) -> Encoded: ...

    async def take(self, owner: str, request: p.Take) -> p.Taken: ...

    async def leave(self, owner: str, request: p.Leave) -> None: ...


class Streams:
    """All of them, by the stage whose value they are."""

    def __init__(self, run: str, graph: Graph, world: World, inline_bytes: int) -> None:
        self._run = run
        self._graph = graph
        self._world = world
        self._inline_bytes = inline_bytes
        self._made: dict[str, _Lent] = {}
        self._fed: dict[str, p.StreamRef] = {}
        self._read: set[tuple[str, str]] = set()

    @property
    def idle(self) -> bool:
        """Whether no stage elsewhere has yet to read one of them."""
        return not any(lent.readers for lent in self._made.values())

    def begin(self, stage: str, readers: Iterable[str]) -> Stream:
        """The stream of an attempt of a stage; ``readers`` are those in other segments."""
        stream = Stream(passing=stage in self._graph.passing, size=nbytes_of)
        self._made[stage] = _Lent(stream, set(readers))
        return stream

    def feed(self, stage: str, ref: p.StreamRef) -> None:
        """The value of a stage that runs elsewhere can be read there."""
        self._fed[stage] = ref

    def has(self, stage: str) -> bool:
        return stage in self._made or stage in self._fed

    def source(self, stage: str, reader: str) -> Source | None:
        """Where a stage reads the value of another one; None when there is no stream of it."""
        if stage in self._made:
            return self._made[stage].stream
        if (ref := self._fed.get(stage)) is None:
            return None
        annotation = piece_annotation(self._graph.stage(stage))
        return _Remote(self._run, ref, reader, self._world, annotation, self._read)

    def forget(self, broken: str) -> str:
        """Drop the stream of this id; returns the stage that it was of, or nothing when another
        one has come in its place."""
        for stage, lent in self._made.items():
            if lent.stream.id == broken:
                del self._made[stage]
                return stage
        for stage, ref in self._fed.items():
            if ref.id == broken:
                del self._fed[stage]
                return stage
        return ""

    async def leave(self, reader: str) -> None:
        """A stage has ended, and reads no more of what it has not read to the end."""
        for before in self._graph.dependencies(reader):
            if self._graph.reads(reader, before) and (source := self.source(before, reader)):
                await source.leave()

    async def answer(self, request: p.Take) -> p.Taken:
        """Pieces for a reader elsewhere.

        Raises:
            TransportError: the stream broke, or has dropped what is asked for.
        """
        lent = self._lent(request.ref)
        lent.withdraw(request.reader)
        try:
            pieces, ended = await lent.stream.take(request.position)
        except StreamLost as error:
            raise TransportError(error.message) from error
        values: list[p.Value] = []
        room = _BATCH_BYTES
        while len(values) < min(len(pieces), _BATCH) and room > 0:
            value = self._encoded(pieces[len(values)], lent.lend(request.reader))
            room -= value.nbytes if isinstance(value, Encoded) else 0
            values.append(value)
        # A reader has what it was referred to when it asks for what comes after that.
        if len(values) < len(pieces) or any(isinstance(value, p.Ref) for value in values):
            ended = False
        if ended:
            lent.readers.discard(request.reader)
        return p.Taken(pieces=values, ended=ended)

    async def left(self, request: p.Leave) -> None:
        """A reader elsewhere needs no more."""
        lent = self._lent(request.ref)
        lent.withdraw(request.reader)
        lent.readers.discard(request.reader)
        await lent.stream.leave()

    def lends(self, ref: str) -> bool:
        return any(lent.stream.id == ref for lent in self._made.values())

    def held(self, ref: str) -> Encoded | None:
        """A piece that a reader was referred to."""
        for lent in self._made.values():
            if (value := lent.find(ref)) is not None:
                return value
        return None

    def close(self) -> None:
        for lent in self._made.values():
            lent.stream.fail("its segment was closed")
        self._made.clear()
        self._fed.clear()

    def _lent(self, ref: str) -> _Lent:
        for lent in self._made.values():
            if lent.stream.id == ref:
                return lent
        raise TransportError("the stream is gone: another one has come in its place")

    def _encoded(self, piece: Any, publish: Callable[[Encoded], str]) -> p.Value:
        encoded = codec.encode(piece)
        if encoded.nbytes <= self._inline_bytes:
            return Encoded(encoded.header, tuple(bytes(part) for part in encoded.buffers))
        return p.Ref(id=publish(encoded), owner=self._world.address, nbytes=encoded.nbytes)


class _Lent:
    """A stream made here, the stages elsewhere that have yet to read it, and what these were
    referred to."""

    def __init__(self, stream: Stream, readers: set[str]) -> None:
        self.stream = stream
        self.readers = readers
        self._published: dict[str, Published] = {}

    def lend(self, reader: str) -> Callable[[Encoded], str]:
        return self._published.setdefault(reader, Published()).publish

    def withdraw(self, reader: str) -> None:
        self._published.pop(reader, None)

    def find(self, ref: str) -> Encoded | None:
        found = (published.find(ref) for published in self._published.values())
        return next((value for value in found if value is not None), None)


class _Remote(Source):
    """A stream of another segment. ``read`` collects the ids that a stage has read to the end."""

    def __init__(
        self,
        run: str,
        ref: p.StreamRef,
        reader: str,
        world: World,
        piece: Any,
        read: set[tuple[str, str]],
    ) -> None:
        self._run = run
        self._ref = ref
        self._reader = reader
        self._world = world
        self._piece = piece
        self._read = read

    async def take(self, position: int) -> tuple[list[Any], bool]:
        request = p.Take(run=self._run, ref=self._ref.id, reader=self._reader, position=position)
        try:
            taken = await self._world.take(self._ref.owner, request)
            pieces = [await self._decode(value) for value in taken.pieces]
        except TransportError as error:
            raise lost(error.message, self._ref.id) from error
        if taken.ended:
            self._read.add((self._ref.id, self._reader))
        return pieces, taken.ended

    async def leave(self) -> None:
        if (self._ref.id, self._reader) not in self._read:
            with contextlib.suppress(AdjoinError):  # its owner is gone, and so is what it held
                request = p.Leave(run=self._run, ref=self._ref.id, reader=self._reader)
                await self._world.leave(self._ref.owner, request)

    async def _decode(self, value: p.Value) -> Any:
        encoded = await self._world.pull(value, self._run) if isinstance(value, p.Ref) else value
        return sealed(codec.restore(codec.decode(encoded), self._piece))


def piece_annotation(stage: Stage) -> Any:
    """The annotation of a piece of a stage's result, to restore types of the user."""
    arguments = get_args(return_annotation(stage))
    return arguments[0] if arguments else None
