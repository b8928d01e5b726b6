from __future__ import annotations

import pytest
from stage_context import Context, call

from adjoin import functions as fn
from adjoin.errors import InputError
from adjoin.types import Passage


def passage(id: str, text: str) -> Passage:
    return Passage(id=id, text=text, score=9.0, source="s", metadata={"page": 1})


PASSAGES = [
    passage("a", "sun"),
    passage("b", "rain and rain"),
    passage("c", "rain"),
    passage("d", ""),
]


async def test_the_best_come_first_with_their_scores() -> None:
    found = await call(fn.rerank, Context(), "rain", PASSAGES, model="m", k=3)
    assert [(each.id, each.score) for each in found] == [("b", 2.0), ("c", 1.0), ("a", 0.0)]
    assert found[0].metadata == {"page": 1}


async def test_there_may_be_fewer_or_none() -> None:
    assert len(await call(fn.rerank, Context(), "rain", PASSAGES, model="m", k=9)) == 4
    ctx = Context()
    assert await call(fn.rerank, ctx, "rain", [], model="m") == []
    assert not ctx.models


async def test_what_makes_no_sense() -> None:
    with pytest.raises(InputError, match="empty question"):
        await call(fn.rerank, Context(), " ", PASSAGES, model="m")
    with pytest.raises(InputError, match="k is 0"):
        await call(fn.rerank, Context(), "rain", PASSAGES, model="m", k=0)
