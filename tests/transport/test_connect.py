"""Connections whose making nobody waits for any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adjoin.errors import TransportError
from adjoin.transport.remote import connect


class _Pool:
    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.back: asyncio.Queue[Any] = asyncio.Queue()

    async def connect(self, address: str, timeout: float) -> Any:
        self.asked.set()
        await self.go.wait()
        if address == "nowhere":
            raise OSError("refused")
        return "connection"

    def reuse(self, address: str, comm: Any) -> None:
        self.back.put_nowait((address, comm))


async def test_one_that_nobody_waits_for_is_made_and_given_back() -> None:
    pool: Any = _Pool()
    waiting = asyncio.ensure_future(connect(pool, "there"))
    await pool.asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    pool.go.set()
    assert await pool.back.get() == ("there", "connection")


async def test_one_that_cannot_be_made_says_so() -> None:
    pool: Any = _Pool()
    pool.go.set()
    assert await connect(pool, "there") == "connection"
    with pytest.raises(TransportError, match="refused"):
        await connect(pool, "nowhere")
    assert pool.back.empty()
