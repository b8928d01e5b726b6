"""The workflow that `benchmarks.serving` invokes: four stages that do nothing."""

from __future__ import annotations

import adjoin


@adjoin.function
async def first(text: str) -> str:
    return text


@adjoin.function
async def second(text: str) -> str:
    return text


@adjoin.function
async def third(text: str) -> str:
    return text


@adjoin.function
async def fourth(text: str) -> int:
    return len(text)


@adjoin.workflow
def chain(text: str) -> int:  # type: ignore[return]
    once = first(text)
    twice = second(once)
    thrice = third(twice)
    return fourth(thrice)
