"""Changes to a collection, staged until they are committed."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from adjoin.dag import ModelSpec
from adjoin.errors import Conflict, EngineError, InputError
from adjoin.functions.ingest import embedding_text
from adjoin.runtime import protocol as p
from adjoin.runtime.policies.retry import INFRASTRUCTURE_ATTEMPTS
from adjoin.transport import codec
from adjoin.types import Body, ModelClient, Passage, Usage, Used, Vector
from adjoin.vector_state.collections import Collection, CollectionInfo, check_name

if TYPE_CHECKING:
    from adjoin.runtime.agent import Agent


class Draft:
    """One conversation: Begin, any number of Add, Commit. Nothing is visible before Commit."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._collection = ""
        self._model: ModelClient | None = None
        self._passages: list[Passage] = []
        self._vectors: list[Vector] = []
        self._usage = Usage()

    async def take(self, request: p.Message) -> p.Message:
        match request:
            case p.Begin():
                return await self._begin(request)
            case p.Add(passages=passages):
                return await self._add(passages)
            case p.Commit(sources=sources, remove=remove):
                info = await self._commit(sources, remove)
                return p.Reply(value=codec.encode(msgspec.structs.asdict(info)))
        raise InputError(f"a draft does not take {type(request).__name__}")

    async def _begin(self, request: p.Begin) -> p.Begun:
        name = check_name(request.collection)
        collection = await self._agent.shelf.ensure(
            name, request.embedding, fingerprint(request.spec)
        )
        if collection.embedding != request.embedding:
            raise Conflict(
                f"it holds vectors of {collection.embedding!r}, not of {request.embedding!r}",
                where=f"collection {name!r}",
                hint=f"use embedding={collection.embedding!r}, or delete the collection first",
            )
        self._collection = name
        self._model = await self._agent.hosted(request.embedding, request.spec, self._observe)
        return p.Begun(embedding=collection.embedding, sources=collection.sources())

    async def _add(self, passages: list[Passage]) -> p.Staged:
        if self._model is None:
            raise InputError("a draft begins with the name of a collection")
        before = self._usage
        if passages:
            texts = [embedding_text(each) for each in passages]
            self._vectors.append(await _embed(self._model, texts))
            self._passages.extend(passages)
        usage = Usage(
            embedded=self._usage.embedded - before.embedded,
            cold_start_seconds=self._usage.cold_start_seconds - before.cold_start_seconds,
        )
        return p.Staged(passages=len(self._passages), usage=usage)

    async def _commit(self, sources: dict[str, str], remove: list[str]) -> CollectionInfo:
        def apply(collection: Collection) -> None:
            collection.delete_sources(remove)
            vectors = np.concatenate(self._vectors) if self._vectors else _NO_VECTORS
            collection.upsert(self._passages, vectors, sources)

        return await self._agent.shelf.change(self._collection, apply)

    def _observe(self, body: Body) -> None:
        if isinstance(body, Used):
            self._usage = self._usage + body.usage


_NO_VECTORS: Vector = np.zeros((0, 0), dtype=np.float32)


async def _embed(model: ModelClient, texts: list[str]) -> Vector:
    """Vectors of texts; a replica that dies meanwhile is replaced."""
    for _ in range(INFRASTRUCTURE_ATTEMPTS - 1):
        with contextlib.suppress(EngineError):
            return await model.embed(texts)
    return await model.embed(texts)


def fingerprint(spec: ModelSpec) -> str:
    """What identifies an embedding model as a workflow declares it."""
    return hashlib.sha256(msgspec.json.encode(spec, order="sorted")).hexdigest()
