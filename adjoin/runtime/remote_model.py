"""A model as a stage sees it: calls that find, or start, a replica on this machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import numpy as np

from adjoin.errors import InputError, ModelError
from adjoin.functions.engines.base import (
    Delta,
    Embedded,
    EmbedRequest,
    Finished,
    GenerateRequest,
)
from adjoin.runtime.replica_link import ReplicaLink
from adjoin.types import Body, Generation, Message, Sampling, Token, Usage, Used, Vector

#: Texts in one request. Bulk work goes in pieces, so that a single question is soon between them.
_TEXTS = 64
#: Pieces in flight: enough that the replica never waits for the next.
_PIECES = 2


class FindReplica(Protocol):
    async def __call__(self) -> tuple[ReplicaLink, float]:
        """An open connection, and how long a replica had to be waited for, in seconds."""
        ...


class RemoteModel:
    """A :class:`adjoin.types.ModelClient`. Each call ends with a :class:`Used`, however it ends."""

    def __init__(self, name: str, find: FindReplica, observe: Callable[[Body], None]) -> None:
        self.name = name
        self._find = find
        self._observe = observe

    async def embed(self, texts: Sequence[str]) -> Vector:
        """Unit vectors, float32 ``[len(texts), d]``. See :class:`adjoin.types.ModelClient`."""
        if isinstance(texts, str):
            raise InputError("embed takes a list of texts, not one text")
        link, waited = await self._replica("embed")
        began = time.perf_counter()
        gate = asyncio.Semaphore(_PIECES)
        usages: list[Usage] = []
        pieces = [list(texts[at : at + _TEXTS]) for at in range(0, len(texts), _TEXTS)]
        work = [asyncio.create_task(self._embed(link, piece, gate, usages)) for piece in pieces]
        try:
            vectors = await asyncio.gather(*work)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self._used(sum(usages, Usage()), began, waited)
        if not vectors:
            return np.empty((0, link.started.dimension), dtype=np.float32)
        return np.concatenate(vectors)

    async def generate(
        self, prompt: str | Sequence[Message], sampling: Sampling, *, raw: bool = False
    ) -> AsyncIterator[Token | Generation]:
        """Tokens, then the samples. See :class:`adjoin.types.ModelClient`."""
        link, waited = await self._replica("generate")
        began = time.perf_counter()
        content = prompt if isinstance(prompt, str) else list(prompt)
        call = link.begin(GenerateRequest(id="", prompt=content, sampling=sampling, raw=raw))
        try:
            while isinstance(output := await call.next(), Delta):
                for token in output.tokens:
                    yield token
            if isinstance(output, Finished):
                for generation in output.generations:
                    yield generation
        finally:
            self._used(await call.end(), began, waited)

    async def _replica(self, capability: str) -> tuple[ReplicaLink, float]:
        link, waited = await self._find()
        if capability not in link.started.capabilities:
            can = " and ".join(link.started.capabilities)
            raise ModelError(
                f"it cannot {capability}, it can {can}",
                where=f"model {self.name!r}",
                hint=f"name a model that can {capability}",
            )
        return link, waited

    async def _embed(
        self, link: ReplicaLink, texts: list[str], gate: asyncio.Semaphore, usages: list[Usage]
    ) -> Vector:
        async with gate:
            call = link.begin(EmbedRequest(id="", texts=texts))
            try:
                output = await call.next()
            finally:
                usages.append(await call.end())
        if not isinstance(output, Embedded):
            raise ModelError("the engine answered an embedding with text", where=self.name)
        return output.vectors

    def _used(self, usage: Usage, began: float, waited: float) -> None:
        times = Usage(seconds=time.perf_counter() - began, cold_start_seconds=waited)
        self._observe(Used(model=self.name, usage=usage + times))
