"""``rerank``: passages in the order of how well they answer a question."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from adjoin.errors import InputError
from adjoin.functions.builtin.voting import select
from adjoin.types import Passage, StageContext


async def rerank(
    ctx: StageContext,
    question: str,
    passages: list[Passage],
    *,
    model: str,
    k: Annotated[int, Meta(ge=1)] = 4,
) -> list[Passage]:
    """The ``k`` passages that answer the question best, best first; all, if there are fewer.

    Their scores are the model's: a cross-encoder's number, or with an embedding model the mean over
    the question's tokens of the cosine with the nearest token of the passage, in [-1, 1] (late
    interaction; Khattab and Zaharia, 2020). Equal ones keep their order.

    Raises:
        InputError: the question is empty, or ``k`` is less than 1.
        EngineError: the model's replica failed.
        ModelError: the model cannot be had or does not score.
    """
    if not question.strip():
        raise InputError("empty question", where="argument 'question'", hint="give a text")
    if k < 1:
        raise InputError(f"k is {k}", where="argument 'k'", hint="ask for at least one passage")
    if not passages:
        return []
    scores = await ctx.model(model).score(question, [passage.text for passage in passages])
    scored = [
        msgspec.structs.replace(passage, score=score)
        for passage, score in zip(passages, scores, strict=True)
    ]
    return select(scored, scores, k=k)
