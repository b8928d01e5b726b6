"""Models and collections as the stages of an agent's segments see them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adjoin.dag import ModelSpec
from adjoin.errors import InputError
from adjoin.runtime.policies.budget import Tab
from adjoin.types import (
    Body,
    Generation,
    Message,
    ModelClient,
    Passage,
    Sampling,
    Token,
    Vector,
)

if TYPE_CHECKING:
    from adjoin.runtime.agent import Agent


class LinkedModel:
    """A model client that attaches to the host when it is first used."""

    def __init__(
        self, agent: Agent, name: str, spec: ModelSpec, observe: Callable[[Body], None], tab: Tab
    ) -> None:
        self.name = name
        self._tab = tab
        self._agent = agent
        self._spec = spec
        self._observe = observe

    async def embed(self, texts: Sequence[str]) -> Vector:
        return await (await self._model()).embed(texts)

    async def capabilities(self) -> frozenset[str]:
        return await (await self._model()).capabilities()

    async def score(self, query: str, texts: Sequence[str]) -> list[float]:
        return await (await self._model()).score(query, texts)

    async def generate(
        self,
        prompt: str | Sequence[Message],
        sampling: Sampling,
        *,
        raw: bool = False,
        schema: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> AsyncIterator[Token | Generation]:
        most = self._agent.settings.max_new_tokens
        if sampling.max_tokens > most:
            raise InputError(
                f"max_tokens is {sampling.max_tokens}, the most is {most}",
                hint="ask for fewer, or raise max_new_tokens",
            )
        stream = (await self._model()).generate(
            prompt, sampling, raw=raw, schema=schema, tools=tools
        )
        async with contextlib.aclosing(stream) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                yield piece

    async def _model(self) -> ModelClient:
        return await self._agent.hosted(self.name, self._spec, self._observe, self._tab)


class ShelvedCollection:
    """A collection that this agent opens when it is first used."""

    def __init__(self, agent: Agent, name: str) -> None:
        self.name = name
        self._agent = agent

    async def search(self, vector: Vector, k: int) -> list[Passage]:
        return await self._agent.search(self.name, vector, k)
