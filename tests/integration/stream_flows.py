"""Workflows whose stages read each other's values while these are being made."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import adjoin
from adjoin import functions as fn
from adjoin.dag import ModelSpec
from adjoin.types import Progress

PATIENT = ModelSpec(source="fake:", engine="fake", args={"words": 30, "interval_s": 0.02})
SLOW = ModelSpec(source="fake:", engine="fake", args={"words": 100_000, "interval_s": 0.01})


@adjoin.function
def words(pieces: Iterator[str]) -> Iterator[str]:
    held = ""
    for piece in pieces:
        held += piece
        *whole, held = held.split(" ")
        yield from filter(None, whole)
    if held:
        yield held


@adjoin.function
def louder(context: adjoin.StageContext, texts: Iterator[str]) -> list[str]:
    found = []
    for text in texts:
        found.append(text.upper())
        context.emit(Progress(label="louder", done=len(found)))
    return found


@adjoin.workflow(models={"patient": PATIENT})
def spoken(question: str):  # type: ignore[no-untyped-def]
    answer = fn.generate(question, model="patient")
    return {"answer": answer, "loud": louder(words(answer))}


@adjoin.workflow(models={"slow": SLOW})
def endless_talk(question: str):  # type: ignore[no-untyped-def]
    return louder(words(fn.generate(question, model="slow")))


@adjoin.function
def arrays(context: adjoin.StageContext, n: int, size: int) -> Iterator[adjoin.Vector]:
    for number in range(n):
        context.emit(Progress(label="made", done=number + 1))
        yield np.full(size, number, dtype=np.float32)


@adjoin.function
async def sums(vectors: AsyncIterator[adjoin.Vector]) -> AsyncIterator[float]:
    async for vector in vectors:
        yield float(vector.sum())


@adjoin.function
def largest(values: Iterator[float]) -> float:
    return max(values)


@adjoin.function
def is_writable(vectors: Iterator[adjoin.Vector]) -> bool:
    return any(vector.flags.writeable for vector in vectors)


@adjoin.function
def gated(context: adjoin.StageContext, vectors: Iterator[adjoin.Vector], gate: str) -> int:
    """Waits after the first piece until the file ``gate`` exists."""
    next(vectors)
    _wait_for(gate)
    context.emit(Progress(label="released", done=1))
    return 1 + sum(1 for _ in vectors)


def _wait_for(path: str) -> None:
    fifo = os.open(path, os.O_RDONLY)  # blocks until somebody opens it to write
    os.close(fifo)


@adjoin.function
def first(values: Iterator[Any], count: int) -> list[Any]:
    return [next(values) for _ in range(count)]


@adjoin.function
def endless(context: adjoin.StageContext, closed: str) -> Iterator[int]:
    number = 0
    try:
        while True:
            number += 1
            yield number
    finally:
        Path(closed).write_text("closed")


@adjoin.function
async def endless_too(closed: str) -> AsyncIterator[int]:
    number = 0
    try:
        while True:
            number += 1
            yield number
            await asyncio.sleep(0)
    finally:
        Path(closed).write_text("closed")


@adjoin.function
def counted(context: adjoin.StageContext, values: Iterator[int]) -> int:
    seen = 0
    for seen in values:
        if seen % 100 == 1:
            context.emit(Progress(label="counted", done=seen))
    return seen


@adjoin.function
def pids(n: int, gate: str) -> Iterator[int]:
    """Its process, n times; waits in the middle the first time that ``gate`` is there."""
    for number in range(n):
        if number == n // 2 and Path(gate).exists():
            _wait_for(gate)
        yield os.getpid()


@adjoin.function
def all_of(context: adjoin.StageContext, values: Iterator[int]) -> dict[str, Any]:
    found = []
    for value in values:
        found.append(value)
        context.emit(Progress(label="got", done=len(found)))
    return {"values": found, "pid": os.getpid()}


@adjoin.function(attempts=2)
def fails_once(values: Iterator[int], marker: str) -> list[int]:
    found = [next(values), next(values)]
    if not Path(marker).exists():
        Path(marker).write_text("failed")
        raise ValueError("once")
    return [*found, *values]


@adjoin.function
def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@adjoin.function
def plus(values: list[int], more: Iterator[int]) -> int:
    return sum(values) + sum(more)


def avoiding(apart: bool, stage: str) -> dict[str, Any]:
    return {"avoid": stage} if apart else {"colocate": stage}


def flow(apart: bool) -> Any:
    @adjoin.workflow
    def arrays_flow(n: int, size: int):  # type: ignore[no-untyped-def]
        made = arrays(n, size)
        added = sums.options(id="added", **avoiding(apart, "made"))(made)
        return {"sums": added, "largest": largest(added)}

    return arrays_flow


def reading(what: Any, apart: bool, **options: Any) -> Any:
    @adjoin.workflow
    def reading_flow(n: int, size: int):  # type: ignore[no-untyped-def]
        made = arrays(n, size)
        return what.options(id="read", **avoiding(apart, "made"))(made, **options)

    return reading_flow


def leaving(producer: Any, apart: bool, closed: str) -> Any:
    @adjoin.workflow
    def leaving_flow(count: int):  # type: ignore[no-untyped-def]
        made = producer(closed)
        return first.options(id="read", **avoiding(apart, "made"))(made, count)

    return leaving_flow


def counting(apart: bool, closed: str) -> Any:
    @adjoin.workflow
    def counting_flow():  # type: ignore[no-untyped-def]
        made = endless(closed)
        return counted.options(id="read", **avoiding(apart, "made"))(made)

    return counting_flow


@adjoin.workflow
def lost(n: int, gate: str):  # type: ignore[no-untyped-def]
    made = pids(n, gate)
    return all_of.options(id="read", avoid="made")(made)


def failing(apart: bool) -> Any:
    @adjoin.workflow
    def failing_flow(n: int, marker: str):  # type: ignore[no-untyped-def]
        made = numbers(n)
        return fails_once.options(id="read", **avoiding(apart, "made"))(made, marker)

    return failing_flow


@adjoin.workflow
def diamond(n: int):  # type: ignore[no-untyped-def]
    """One stage needs all of a value before it reads what another one makes of it."""
    made = numbers(n)
    read = again(made)
    return plus(made, read)


@adjoin.function
def again(values: Iterator[int]) -> Iterator[int]:
    for value in values:
        yield 2 * value


@adjoin.workflow
def within(n: int):  # type: ignore[no-untyped-def]
    return again(numbers(n))


@adjoin.workflow
def nested(sizes: list[int]):  # type: ignore[no-untyped-def]
    """In fan-outs and nested workflows values are whole, and mean the same."""
    return within(adjoin.each(sizes))


@adjoin.function(attempts=2)
def breaks_late(vectors: Iterator[adjoin.Vector], marker: str) -> int:
    seen = 0
    for _ in vectors:
        seen += 1
        if seen == 90 and not Path(marker).exists():
            Path(marker).write_text("failed")
            raise ValueError("late")
    return seen
