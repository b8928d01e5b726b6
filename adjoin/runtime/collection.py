"""A collection as its user holds it: documents in, passages out."""

from __future__ import annotations

import asyncio
import hashlib
import operator
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from adjoin.dag import ModelSpec
from adjoin.errors import InputError, NotFound
from adjoin.functions.ingest import (
    Document,
    Found,
    Limits,
    ParseFailure,
    SyncPlan,
    belongs,
    parse_files,
    passages_of,
    plan_sync,
    scan,
)
from adjoin.runtime import protocol as p
from adjoin.runtime.conversation import decode, unwrap
from adjoin.runtime.driver import Driver
from adjoin.runtime.loop import Loop
from adjoin.runtime.policies.topology import owner_of
from adjoin.transport import codec
from adjoin.transport.remote import Channel
from adjoin.types import Passage, Progress, Scalar, Usage, Vector
from adjoin.vector_state.collections import CollectionInfo, check_name

OnProgress = Callable[[Progress], None]
#: Passages a message: enough to fill the embedding engine's batches, few enough to show progress.
_BATCH = 64
_DEFAULT_EMBEDDING = "minilm"


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """What adding a folder did; counts are of documents, ``passages`` of what was embedded."""

    added: int
    changed: int
    removed: int
    unchanged: int
    skipped: tuple[tuple[str, str], ...]
    passages: int
    usage: Usage


class CollectionHandle:
    """One collection, by name.

    Methods that begin with ``a`` are the asynchronous forms of those that do not.
    """

    def __init__(self, name: str, embedding: str | None, driver: Driver, loop: Loop) -> None:
        self.name = check_name(name)
        self._embedding = embedding
        self._driver = driver
        self._loop = loop

    def add_files(self, path: str | Path, *, progress: OnProgress | None = None) -> SyncReport:
        """Make the collection hold what a folder (or one file) holds now.

        Only documents that are new or changed are parsed and embedded; those that are gone from the
        folder are removed. Documents that cannot be read are reported, and do not stop the others.
        Everything becomes visible at once, at the end.

        Args:
            progress: called with documents done and to do, from another thread.

        Raises:
            NotFound: there is nothing at ``path``.
            InputError: it holds no supported document.
            Conflict: the collection was made with another embedding model.
        """
        return self._loop.call(self._add_files(path, progress or _silent))

    async def aadd_files(
        self, path: str | Path, *, progress: OnProgress | None = None
    ) -> SyncReport:
        return await self._loop.bridge(self._add_files(path, progress or _silent))

    async def aadd_document(self, path: Path, source: str) -> SyncReport:
        """Add one file, known by a name of its own: its uploader's; raises as ``add_files``."""
        return await self._loop.bridge(self._add_files(path, _silent, source))

    async def acreate(self) -> CollectionInfo:
        """Make it without anything in it; one that is there stays as it is.

        Raises:
            Conflict: it was made with another embedding model.
        """
        return await self._loop.bridge(self._create())

    async def aadd_passages(self, passages: Sequence[Passage]) -> CollectionInfo:
        """Add passages as they are; one with an id that is there already is replaced."""
        return await self._loop.bridge(self._add_passages(passages, _silent))

    def add_texts(
        self,
        texts: Sequence[str] | Mapping[str, str],
        *,
        progress: OnProgress | None = None,
    ) -> CollectionInfo:
        """Add texts as they are, each as one passage; a mapping names the source of each.

        A text that is there already, under the same source, is replaced.
        """
        return self._loop.call(self._add_texts(texts, progress or _silent))

    async def aadd_texts(
        self,
        texts: Sequence[str] | Mapping[str, str],
        *,
        progress: OnProgress | None = None,
    ) -> CollectionInfo:
        return await self._loop.bridge(self._add_texts(texts, progress or _silent))

    def search(self, query: str | Vector, k: int = 4) -> list[Passage]:
        """The ``k`` passages nearest to a text or a vector ``[d]``, best first.

        Raises:
            NotFound: there is no such collection.
            InputError: ``k`` or the query is out of bounds.
        """
        return self._loop.call(self._search(query, k))

    async def asearch(self, query: str | Vector, k: int = 4) -> list[Passage]:
        return await self._loop.bridge(self._search(query, k))

    def info(self) -> CollectionInfo:
        """What is stored; raises :class:`NotFound` when there is nothing."""
        return self._loop.call(self._info())

    async def ainfo(self) -> CollectionInfo:
        return await self._loop.bridge(self._info())

    def delete(self) -> None:
        """Remove the collection and its files; raises :class:`NotFound` when there is none."""
        self._loop.call(self._call(p.Drop(collection=self.name)))

    async def adelete(self) -> None:
        await self._loop.bridge(self._call(p.Drop(collection=self.name)))

    # -- the asynchronous core --

    async def _create(self) -> CollectionInfo:
        async with self._draft():
            pass
        return await self._info()

    async def _add_files(
        self, path: str | Path, progress: OnProgress, source: str | None = None
    ) -> SyncReport:
        limits = Limits.of(self._driver.settings)
        found = await asyncio.to_thread(scan, path, limits=limits)
        if source is not None:
            found = dict.fromkeys([source], *found.values())
        async with self._draft() as draft:
            belonging = belongs if source is None else operator.eq
            current = {s: d for s, d in draft.sources.items() if belonging(s, source or path)}
            plan = plan_sync(current, {source: each.digest for source, each in found.items()})
            todo = {source: found[source] for source in (*plan.add, *plan.change)}
            failures = await self._embed_files(draft, todo, limits, progress)
            failed = {failure.source for failure in failures}
            sources = {s: f.digest for s, f in todo.items() if s not in failed}
            # What cannot be read now may have been readable before: that is kept, with its old
            # digest, so that the next time tries again. What has become empty is dropped.
            kept = {failure.source for failure in failures if not failure.skipped}
            remove = [source for source in (*plan.change, *plan.remove) if source not in kept]
            if sources or remove:
                await draft.commit(sources, remove)
        return _report(plan, found, failures, draft)

    async def _embed_files(
        self, draft: _DraftChannel, todo: Mapping[str, Found], limits: Limits, progress: OnProgress
    ) -> list[ParseFailure]:
        """Parse in one thread and process while the agent embeds what was parsed before."""
        failures: list[ParseFailure] = []
        label = f"adding to {self.name}"
        progress(Progress(label=label, done=0, total=len(todo)))
        documents = parse_files(todo, limits)
        try:
            done = 0
            while (parsed := await asyncio.to_thread(next, documents, None)) is not None:
                if isinstance(parsed, Document):
                    await draft.add(await asyncio.to_thread(passages_of, parsed))
                else:
                    failures.append(parsed)
                done += 1
                progress(Progress(label=label, done=done, total=len(todo)))
            await draft.flush()
        finally:
            await asyncio.to_thread(documents.close)  # type: ignore[attr-defined]
        return failures

    async def _add_texts(
        self, texts: Sequence[str] | Mapping[str, str], progress: OnProgress
    ) -> CollectionInfo:
        if isinstance(texts, str):
            raise InputError("texts is one text", hint="give a list of texts")
        named = texts.items() if isinstance(texts, Mapping) else (("", text) for text in texts)
        return await self._add_passages(
            [new_passage(text, source) for source, text in named], progress
        )

    async def _add_passages(
        self, passages: Sequence[Passage], progress: OnProgress
    ) -> CollectionInfo:
        label = f"adding to {self.name}"
        async with self._draft() as draft:
            for start in range(0, len(passages), _BATCH):
                progress(Progress(label=label, done=start, total=len(passages)))
                await draft.add(passages[start : start + _BATCH])
            await draft.flush()
            progress(Progress(label=label, done=len(passages), total=len(passages)))
            return await draft.commit({}, [])

    async def _search(self, query: str | Vector, k: int) -> list[Passage]:
        if isinstance(query, str):
            request = p.Search(collection=self.name, k=k, text=query)
        else:
            vector = codec.encode(np.asarray(query, dtype=np.float32))
            inline = codec.Encoded(vector.header, tuple(bytes(part) for part in vector.buffers))
            request = p.Search(collection=self.name, k=k, vector=inline)
        found: list[Passage] = await self._call(request)
        return found

    async def _info(self) -> CollectionInfo:
        (info,) = await self._call(p.Describe(collection=self.name))
        return CollectionInfo(**info)

    async def _call(self, request: p.Message) -> Any:
        return await self._driver.cluster.call(await self._owner(), request)

    async def _owner(self) -> str:
        return owner_of(self.name, (await self._driver.cluster.ready()).workers).name

    @asynccontextmanager
    async def _draft(self) -> AsyncIterator[_DraftChannel]:
        embedding = self._embedding or await self._stored_embedding()
        channel = await self._driver.cluster.open(
            await self._owner(),
            "adjoin_draft",
            p.Begin(collection=self.name, embedding=embedding, spec=ModelSpec(source=embedding)),
        )
        try:
            begun = await _DraftChannel.ask(channel)
            yield _DraftChannel(channel, begun.sources)
            await channel.send([p.pack(p.Close())])
            channel.release()
        except BaseException:
            channel.abort()
            raise

    async def _stored_embedding(self) -> str:
        try:
            return (await self._info()).embedding
        except NotFound:
            return _DEFAULT_EMBEDDING


class _DraftChannel:
    """The user's end of a draft: passages in batches, then one commit."""

    def __init__(self, channel: Channel, sources: dict[str, str]) -> None:
        self.sources = sources
        self.passages = 0
        self.usage = Usage()
        self._channel = channel
        self._waiting: list[Passage] = []

    async def add(self, passages: Iterable[Passage]) -> None:
        self._waiting.extend(passages)
        while len(self._waiting) >= _BATCH:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            await self._stage(batch)

    async def flush(self) -> None:
        if self._waiting:
            batch, self._waiting = self._waiting, []
            await self._stage(batch)

    async def commit(self, sources: dict[str, str], remove: list[str]) -> CollectionInfo:
        await self._channel.send([p.pack(p.Commit(sources=sources, remove=remove))])
        (message, *_), _buffers = await self._channel.receive()
        return CollectionInfo(**codec.decode(unwrap(message)))

    async def _stage(self, batch: list[Passage]) -> None:
        await self._channel.send([p.pack(p.Add(passages=batch))])
        staged = await self.ask(self._channel)
        self.passages = staged.passages
        self.usage = self.usage + staged.usage

    @staticmethod
    async def ask(channel: Channel) -> Any:
        """The next answer; raises what a refusal says."""
        (message, *_), _buffers = await channel.receive()
        answer = decode(message, p.ToDraft)
        if isinstance(answer, p.Refused):
            unwrap(message)
        return answer


def _report(
    plan: SyncPlan,
    found: Mapping[str, Found],
    failures: Sequence[ParseFailure],
    draft: _DraftChannel,
) -> SyncReport:
    failed = {failure.source for failure in failures}
    return SyncReport(
        added=len(set(plan.add) - failed),
        changed=len(set(plan.change) - failed),
        removed=len(plan.remove),
        unchanged=len(found) - len(plan.add) - len(plan.change),
        skipped=tuple((failure.source, failure.reason) for failure in failures),
        passages=draft.passages,
        usage=draft.usage,
    )


def new_passage(
    text: str, source: str = "", *, id: str = "", metadata: Mapping[str, Scalar] | None = None
) -> Passage:
    """A passage to add; without an ``id`` it has that of its source and text.

    Raises:
        InputError: the text is empty.
    """
    if not text.strip():
        raise InputError("a text is empty", where=source, hint="leave it out")
    digest = hashlib.blake2b(f"{source}\0{text}".encode(), digest_size=16).hexdigest()
    return Passage(id=id or digest, text=text, source=source, metadata=metadata or {})


def _silent(progress: Progress) -> None:
    """Nobody watches."""
