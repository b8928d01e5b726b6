"""Functions of the workflows in these tests."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import adjoin


@adjoin.function
def shout(text: str) -> str:
    return text.upper()


@adjoin.function
def same(text: str) -> str:
    return text


@adjoin.function
def fail(text: str) -> str:
    raise ValueError(f"cannot take {text}")


@adjoin.function
async def wait_for(path: str) -> str:
    """Returns when a file is there; leaves a mark while it waits."""
    mark = Path(f"{path}.waits")
    mark.touch()
    try:
        while not Path(path).exists():
            await asyncio.sleep(0.01)
    finally:
        mark.unlink(missing_ok=True)
    return path


@adjoin.function
def look_up(text: str) -> list[adjoin.Passage]:
    return [adjoin.Passage(id="1", text="a source")]


@adjoin.function
def cite(text: str, passages: list[adjoin.Passage]) -> str:
    return f"{text}[{len(passages)}]"


@adjoin.function
def shout_with(text: str, passages: list[adjoin.Passage]) -> str:
    return text.upper()


@adjoin.function
def recall(question: str, history: list[adjoin.Message], mark: str) -> str:
    return f"{','.join(turn.role for turn in history)} then {question}{mark}"


@adjoin.function
def count(path: str) -> str:
    """How often it was called with this file; slow enough to be waited for."""
    time.sleep(0.2)
    with Path(path).open("a") as file:
        file.write("x")
    return str(len(Path(path).read_text()))
