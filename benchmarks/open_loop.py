"""Load that comes whether or not it is answered: what overload is."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=120)


@dataclass(frozen=True)
class Load:
    """Requests to come: so many a second, at intervals as of independent callers (exponential)."""

    client: aiohttp.ClientSession
    url: str
    rate: float
    seconds: float
    tokens: Sequence[int]


@dataclass(frozen=True)
class Sent:
    """A request: when it was sent and answered, in seconds from the first; how long that took here;
    and what the service says that the run waited and took, if it was accepted."""

    began: float
    ended: float
    status: int
    total: float | None

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def taken(self) -> float:
        return self.ended - self.began


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


async def offer(load: Load, seed: int = 1) -> list[Sent]:
    """Send it all and wait until all is answered."""
    dice = random.Random(seed)
    origin = time.perf_counter()
    works: list[asyncio.Task[Sent]] = []
    at = 0.0
    while (at := at + dice.expovariate(load.rate)) < load.seconds:
        await asyncio.sleep(max(0.0, origin + at - time.perf_counter()))
        works.append(asyncio.ensure_future(_send(load, origin, dice.choice(load.tokens))))
    return list(await asyncio.gather(*works))


async def capacity(load: Load, clients: int) -> float:
    """Answers a second to clients that each ask again when they have an answer, after a while that
    is not counted."""
    origin = time.perf_counter()
    warm = load.seconds / 3
    ended: list[float] = []

    async def client(dice: random.Random) -> None:
        while time.perf_counter() - origin < load.seconds + warm:
            sent = await _send(load, origin, dice.choice(load.tokens))
            if sent.ok and warm <= sent.ended < warm + load.seconds:
                ended.append(sent.ended)
            elif not sent.ok:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(client(random.Random(n)) for n in range(clients)))
    return len(ended) / load.seconds


async def _send(load: Load, origin: float, tokens: int) -> Sent:
    began = time.perf_counter() - origin
    body = {"question": "Tell me of the sea.", "max_tokens": tokens}
    async with load.client.post(load.url, json=body, timeout=_TIMEOUT) as answer:
        found = await answer.json()
        ended = time.perf_counter() - origin
    total = found["waited"] + found["seconds"] if answer.status == 200 else None
    return Sent(began, ended, answer.status, total)
