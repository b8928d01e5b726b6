"""Functions on vectors: ``embed`` and ``retrieve``."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from adjoin.errors import InputError
from adjoin.types import Passage, StageContext, Vector


async def embed(ctx: StageContext, texts: str | list[str], *, model: str) -> Vector:
    """Unit vectors, float32: ``[d]`` for one text, ``[n, d]`` for a list.

    Raises:
        InputError: a text is empty, or the list is.
        EngineError: the model's replica failed.
        ModelError: the model cannot be had or does not embed.
    """
    batch = [texts] if isinstance(texts, str) else list(texts)
    if not batch:
        raise InputError("no texts", where="argument 'texts'", hint="give at least one text")
    for at, text in enumerate(batch):
        if not text.strip():
            which = "" if isinstance(texts, str) else f" at position {at}"
            raise InputError(
                f"empty text{which}", where="argument 'texts'", hint="give text to embed"
            )
    vectors = await ctx.model(model).embed(batch)
    return np.asarray(vectors[0] if isinstance(texts, str) else vectors)


async def retrieve(
    ctx: StageContext, vector: Vector, *, collection: str, k: Annotated[int, Meta(ge=1)] = 4
) -> list[Passage]:
    """The ``k`` passages most similar to ``vector`` (``[d]``), best first; all if there are fewer.

    Scores are cosine similarities, in [-1, 1].

    Raises:
        InputError: ``k`` is less than 1, or the vector does not fit the collection.
        NotFound: there is no such collection.
        StateError: the collection is damaged.
    """
    if k < 1:
        raise InputError(f"k is {k}", where="argument 'k'", hint="ask for at least one passage")
    return await ctx.collection(collection).search(vector, k)
