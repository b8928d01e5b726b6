"""A model as a stage sees it: calls that find, or start, a replica on this machine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from adjoin.errors import InputError, ModelError
from adjoin.functions.engines.base import (
    Delta,
    Embedded,
    EmbedRequest,
    Finished,
    GenerateRequest,
    Output,
    Scored,
    ScoreRequest,
)
from adjoin.runtime.policies.budget import Tab
from adjoin.runtime.replica_link import ReplicaLink
from adjoin.types import Body, Generation, Message, Sampling, Token, Usage, Used, Vector

#: Texts in one request. Bulk work goes in pieces, so that a single question is soon between them.
_TEXTS = 64
#: Pieces in flight: enough that the replica never waits for the next.
_PIECES = 2

_Answer = TypeVar("_Answer", Embedded, Scored)


class FindReplica(Protocol):
    async def __call__(self) -> tuple[ReplicaLink, float]:
        """An open connection, and how long a replica had to be waited for, in seconds."""
        ...


class RemoteModel:
    """A :class:`adjoin.types.ModelClient`. Each call ends with a :class:`Used`, however it ends."""

    def __init__(
        self,
        name: str,
        find: FindReplica,
        observe: Callable[[Body], None],
        tab: Tab | None = None,
    ) -> None:
        self.name = name
        self._tab = tab or Tab()
        self._find = find
        self._observe = observe

    async def capabilities(self) -> frozenset[str]:
        """What the model can do. See :class:`adjoin.types.ModelClient`."""
        link, waited = await self._find()
        if waited:  # the call that follows will not have to wait
            self._observe(Used(model=self.name, usage=Usage(cold_start_seconds=waited)))
        return frozenset(link.started.capabilities)

    async def embed(self, texts: Sequence[str]) -> Vector:
        """Unit vectors, float32 ``[len(texts), d]``. See :class:`adjoin.types.ModelClient`."""
        if isinstance(texts, str):
            raise InputError("embed takes a list of texts, not one text")
        link, waited = await self._replica("embed")
        requests = [EmbedRequest(id="", texts=piece) for piece in _pieces(texts)]
        answers = await self._bulk(link, waited, requests, Embedded)
        if not answers:
            return np.empty((0, link.started.dimension), dtype=np.float32)
        return np.concatenate([answer.vectors for answer in answers])

    async def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """A score for each text. See :class:`adjoin.types.ModelClient`."""
        link, waited = await self._replica("score")
        requests = [ScoreRequest(id="", query=query, texts=piece) for piece in _pieces(texts)]
        answers = await self._bulk(link, waited, requests, Scored)
        return [score for answer in answers for score in answer.scores]

    async def generate(
        self,
        prompt: str | Sequence[Message],
        sampling: Sampling,
        *,
        raw: bool = False,
        schema: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> AsyncIterator[Token | Generation]:
        """Tokens, then the samples. See :class:`adjoin.types.ModelClient`."""
        link, waited = await self._replica("generate")
        began = time.perf_counter()
        request = GenerateRequest(
            id="",
            prompt=prompt if isinstance(prompt, str) else list(prompt),
            sampling=sampling,
            raw=raw,
            schema="" if schema is None else json.dumps(schema),
            tools=[dict(tool) for tool in tools],
        )
        call = link.begin(self._tab.stamped(request, waited))
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

    async def _bulk(
        self,
        link: ReplicaLink,
        waited: float,
        requests: Sequence[EmbedRequest | ScoreRequest],
        wanted: type[_Answer],
    ) -> list[_Answer]:
        """The answers to requests of which a few are in flight at a time, in order."""
        began = time.perf_counter()
        gate = asyncio.Semaphore(_PIECES)
        usages: list[Usage] = []
        tab, first = self._tab, waited  # one of them waited for all
        work = []
        for each in requests:
            work.append(asyncio.create_task(_ask(link, each, gate, usages, tab, first)))
            first = 0.0
        try:
            outputs = await asyncio.gather(*work)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self._used(sum(usages, Usage()), began, waited)
        answers = [output for output in outputs if isinstance(output, wanted)]
        if len(answers) != len(outputs):
            raise ModelError("the engine gave no answer of that kind", where=f"model {self.name!r}")
        return answers

    def _used(self, usage: Usage, began: float, waited: float) -> None:
        self._tab.use(usage)
        times = Usage(seconds=time.perf_counter() - began, cold_start_seconds=waited)
        self._observe(Used(model=self.name, usage=usage + times))


async def _ask(
    link: ReplicaLink,
    request: EmbedRequest | ScoreRequest,
    gate: asyncio.Semaphore,
    usages: list[Usage],
    tab: Tab,
    waited: float,
) -> Output:
    async with gate:
        call = link.begin(tab.stamped(request, waited))
        try:
            return await call.next()
        finally:
            usages.append(await call.end())


def _pieces(texts: Sequence[str]) -> list[list[str]]:
    return [list(texts[at : at + _TEXTS]) for at in range(0, len(texts), _TEXTS)]
