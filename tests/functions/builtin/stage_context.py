"""A stage's context and its models, answering from memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from adjoin.dag import Function
from adjoin.types import Body, Generation, Message, Passage, Sampling, Token, Vector

PASSAGE = Passage(id="1", text="found", score=0.5)


class Model:
    """``answers`` holds what it says to each call in turn; the last is repeated."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: list[str] = []
        self.can = frozenset({"generate"})
        self.asked: list[tuple[str | Sequence[Message], Sampling]] = []
        self.schemas: list[Mapping[str, Any] | None] = []
        self.tools: list[Sequence[Mapping[str, Any]]] = []
        self.answers: list[list[Token | Generation]] = [
            [Token("Hel", (1,)), Token("lo", (2,)), Generation(text="Hello")]
        ]
        self.closed = False

    @property
    def sampling(self) -> Sampling:
        return self.asked[-1][1]

    def says(self, *answers: str | list[str]) -> None:
        """A text is one sample, a list of them several."""
        self.answers = [
            [Generation(text=text, choice=choice) for choice, text in enumerate(texts)]
            for texts in ([each] if isinstance(each, str) else each for each in answers)
        ]

    async def capabilities(self) -> frozenset[str]:
        return self.can

    async def embed(self, texts: Sequence[str]) -> Vector:
        self.texts = list(texts)
        return np.arange(len(texts) * 3, dtype=np.float32).reshape(-1, 3)

    async def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """How often the query's words occur."""
        return [float(sum(text.split().count(word) for word in query.split())) for text in texts]

    async def generate(
        self,
        prompt: str | Sequence[Message],
        sampling: Sampling,
        *,
        raw: bool = False,
        schema: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> AsyncIterator[Token | Generation]:
        at = min(len(self.asked), len(self.answers) - 1)
        self.asked.append((prompt, sampling))
        self.schemas.append(schema)
        self.tools.append(tools)
        try:
            for item in self.answers[at]:
                yield item
        finally:
            self.closed = True


class Context:
    """Only what the built-in functions use."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.bodies: list[Body] = []
        self.emit: Callable[[Body], None] = self.bodies.append
        self.searched: tuple[str, int] | None = None

    def model(self, name: str) -> Model:
        return self.models.setdefault(name, Model(name))

    def collection(self, name: str) -> Any:
        context = self

        class Collection:
            async def search(self, vector: Vector, k: int) -> list[Passage]:
                context.searched = (name, k)
                return [PASSAGE]

        return Collection()


def call(function: Function, *args: Any, **kwargs: Any) -> Any:
    assert function.call is not None
    return function.call(*args, **kwargs)
