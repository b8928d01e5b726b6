"""A client that puts load on a server over HTTP and says how it fared; the same for everyone."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=120)


@dataclass(frozen=True)
class Spoken:
    """What streams of tokens took: tokens a second of all together, and median seconds to a first
    token."""

    tok_s: float
    ttft_s: float


async def wait_until_up(url: str, alive: Callable[[], bool], seconds: float = 180) -> float:
    """Seconds until a server answers.

    Raises:
        TimeoutError: it does not, or its process is over.
    """
    began = time.perf_counter()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while time.perf_counter() - began < seconds and alive():
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return time.perf_counter() - began
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{url} did not answer")


async def post(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> bytes:
    async with session.post(url, json=body) as answer:
        content = await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{url} answered {answer.status}: {content[:300]!r}")
        return content


async def latency_ms(url: str, body: Mapping[str, Any], repeats: int) -> float:
    """Median milliseconds of a request, one after another on one connection."""
    times = []
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        for _ in range(repeats // 5):
            await post(session, url, body)
        for _ in range(repeats):
            began = time.perf_counter()
            await post(session, url, body)
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


async def rate(url: str, body: Mapping[str, Any], clients: int, seconds: float) -> float:
    """Requests a second of clients that each send the next request when they have the answer."""
    counted = 0
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(timeout=_TIMEOUT, connector=connector) as session:
        await asyncio.gather(*(post(session, url, body) for _ in range(clients)))
        began = time.perf_counter()

        async def client() -> None:
            nonlocal counted
            while time.perf_counter() - began < seconds:
                await post(session, url, body)
                counted += 1

        await asyncio.gather(*(client() for _ in range(clients)))
        return counted / (time.perf_counter() - began)


async def speak(url: str, model: str, prompts: Sequence[str], max_tokens: int) -> Spoken:
    """A streamed chat for each prompt, all at once."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        began = time.perf_counter()
        found = await asyncio.gather(
            *(_chat(session, url, model, prompt, max_tokens) for prompt in prompts)
        )
        seconds = time.perf_counter() - began
    tokens = sum(generated for generated, _ in found)
    return Spoken(tokens / seconds, statistics.median(first for _, first in found))


async def _chat(
    session: aiohttp.ClientSession, url: str, model: str, prompt: str, max_tokens: int
) -> tuple[int, float]:
    """Tokens that the server says it generated, and seconds until the first text came."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began = time.perf_counter()
    first, generated = 0.0, 0
    async with session.post(url, json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{url} answered {answer.status}: {(await answer.read())[:300]!r}")
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            choices = chunk.get("choices") or []
            if not first and choices and choices[0]["delta"].get("content"):
                first = time.perf_counter() - began
            if usage := chunk.get("usage"):
                generated = usage["completion_tokens"]
    return generated, first


async def median_of(repeats: int, measure: Callable[[], Awaitable[Spoken]]) -> Spoken:
    """Medians of several measurements, after one that is not counted."""
    await measure()
    found = [await measure() for _ in range(repeats)]
    return Spoken(
        statistics.median(each.tok_s for each in found),
        statistics.median(each.ttft_s for each in found),
    )
