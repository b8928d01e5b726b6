"""Workflows for the tests of the runtime."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import adjoin
from adjoin import functions as fn
from adjoin.dag import ModelSpec

FAST = ModelSpec(source="fake:", engine="fake")
SLOW = ModelSpec(source="fake:", engine="fake", args={"words": 100_000, "interval_s": 0.01})


@dataclasses.dataclass
class Report:
    text: str
    size: int


@adjoin.function
def shout(text: str) -> str:
    return text.upper()


@adjoin.function
def measure(text: str) -> Report:
    return Report(text, len(text))


@adjoin.function
def describe(report: Report) -> str:
    return f"{report.text} has {report.size}"


@adjoin.function
def ones(n: int) -> adjoin.Vector:
    return np.ones(n, dtype=np.float32)


@adjoin.function
def total(values: adjoin.Vector) -> float:
    return float(values.sum())


@adjoin.function
def scribble(values: adjoin.Vector) -> float:
    values[0] = 2.0
    return float(values[0])


@adjoin.function
def fail(text: str) -> str:
    raise ValueError(f"cannot take {text}")


@adjoin.function(attempts=3)
def fail_twice(marks: str) -> int:
    """Succeeds at the third attempt; each attempt leaves a file."""
    count = len(list(Path(marks).iterdir())) + 1
    (Path(marks) / str(count)).touch()
    if count < 3:
        raise ValueError(f"attempt {count}")
    return count


@adjoin.function(timeout=0.2)
def too_slow(text: str) -> str:
    threading.Event().wait(5)
    return text


@adjoin.function
async def wait_for(path: str) -> str:
    """Returns when a file is there."""
    while not Path(path).exists():
        await asyncio.sleep(0.01)
    return path


@adjoin.function
def die_once(mark: str) -> str:
    """Kills its worker at the first attempt."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), 9)
    return "survived"


class Connection:
    """Of which no value can travel."""

    def __init__(self) -> None:
        self.pid = os.getpid()


@adjoin.function
def connect() -> Connection:
    return Connection()


@adjoin.function
def use_once(link: Connection, mark: str) -> list[int]:
    """Kills its worker at the first attempt."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), 9)
    return [link.pid, os.getpid()]


@adjoin.workflow
def connected(mark: str) -> Any:
    link = connect()
    return use_once.options(colocate="link")(link, mark)


@adjoin.function
async def freeze(seconds: float) -> int:
    time.sleep(seconds)  # what an async function must not do
    return 1


@adjoin.workflow
def freezing(seconds: float) -> Any:
    return freeze.options(each=2)(seconds)


@adjoin.function
def die(text: str) -> str:
    os.kill(os.getpid(), 9)
    return text


@adjoin.function
def arrays(n: int) -> dict[str, Any]:
    return {"values": [np.ones(n, dtype=np.float32)]}


@adjoin.function
def overwrite(values: dict[str, Any]) -> float:
    values["values"][0][0] = 2.0
    return 0.0


@adjoin.workflow
def overwrites(n: int) -> Any:
    return overwrite(arrays(n))


@adjoin.workflow
def chain(text: str) -> Any:
    loud = shout(text)
    report = measure(loud)
    return {"text": describe(report), "report": report}


@adjoin.workflow
def sums(n: int) -> Any:
    values = ones(n)
    return {"sum": total(values), "values": values}


@adjoin.workflow
def scribbles(n: int) -> Any:
    return scribble(ones(n))


@adjoin.workflow
def failing(text: str) -> Any:
    return fail(text)


@adjoin.workflow
def flaky(marks: str) -> Any:
    return fail_twice(marks)


@adjoin.workflow
def sluggish(text: str) -> Any:
    return too_slow(text)


@adjoin.workflow(models={"fast": FAST})
def answer(question: str) -> Any:
    return fn.generate(question, model="fast")


@adjoin.workflow(models={"slow": SLOW})
def endless(question: str) -> Any:
    return fn.generate(question, model="slow", max_tokens=8000)


@adjoin.workflow(models={"patient": ModelSpec(source="fake:", args={"interval_s": 0.2})})
def patient(question: str) -> Any:
    return fn.generate(question, model="patient")


@adjoin.workflow(
    models={"crashing": ModelSpec(source="fake:", args={"crash_after": 2, "interval_s": 0.05})}
)
def crashing(question: str) -> Any:
    return fn.generate(question, model="crashing")


@adjoin.workflow
def waiting(path: str) -> Any:
    return wait_for(path)


@adjoin.workflow
def dying_once(mark: str) -> Any:
    return die_once(mark)


@adjoin.workflow
def dying(text: str) -> Any:
    return die(text)


@adjoin.workflow
def search(question: str, k: int = 2) -> Any:
    vector = fn.embed(question, model="fake:")
    return fn.retrieve(vector, collection="animals", k=k)


@adjoin.workflow
def two_collections(question: str) -> Any:
    vector = fn.embed(question, model="fake:")
    left = fn.retrieve(vector, collection="animals", k=1)
    right = fn.retrieve(vector, collection="plants", k=1)
    return {"left": left, "right": right}


@adjoin.function
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@adjoin.workflow
def sleeps(seconds: float) -> Any:
    return nap(seconds)


@adjoin.workflow
def licensed(seconds: float) -> Any:
    return nap.options(resources={"licence": 1})(seconds)
