"""Real hosts, templates and replicas with the fake engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from adjoin.dag import ModelSpec
from adjoin.runtime.host_link import HostLink
from adjoin.settings import Settings
from adjoin.types import Body, Generation, ModelClient, Sampling, Token

_numbers = count()


def fake(**args: str | float | bool) -> ModelSpec:
    """A model of its own: no other specification shares its replica."""
    return ModelSpec(source=f"fake:{next(_numbers)}", engine="fake", args=args)


@asynccontextmanager
async def attached(directory: Path, **settings: Any) -> AsyncIterator[HostLink]:
    """A link to a host of its own; afterwards the host has been shut down."""
    link = await HostLink.attach(directory, Settings(home=directory / "home", **settings))
    try:
        yield link
    finally:
        await link.shutdown()


def nothing(_: Body) -> None:
    """Observe nothing."""


class Observed(list[Body]):
    """Everything a client reported."""

    def of(self, kind: type[Body]) -> list[Any]:
        return [body for body in self if isinstance(body, kind)]


async def say(model: ModelClient, prompt: str = "one two three", **sampling: Any) -> str:
    """The answer's text."""
    text = ""
    async for item in model.generate(prompt, Sampling(**sampling)):
        if isinstance(item, Generation):
            text = item.text
    return text


async def first_token(model: ModelClient) -> tuple[Any, Token]:
    """A generation under way, and its first token."""
    stream = model.generate("one two three", Sampling(max_tokens=1000))
    token = await anext(aiter(stream))
    assert isinstance(token, Token)
    return stream, token


async def replicas(link: HostLink, model: str) -> list[dict[str, Any]]:
    """What the status says of a model's replicas."""
    return [one for one in (await link.status())["replicas"] if one["model"] == model]


async def replica_of(link: HostLink, model: str) -> dict[str, Any]:
    (replica,) = await replicas(link, model)
    return replica


class Death:
    """The end of a process, whoever its parent is; opened while it lives."""

    def __init__(self, pid: int) -> None:
        self._pidfd = os.pidfd_open(pid)

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._pidfd, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), 10)
        finally:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)


async def tree(link: HostLink) -> dict[str, Death]:
    """Deaths to come of all processes of a host, by role."""
    status = await link.status()
    found = {"host": Death(status["pid"])}
    found |= {f"template {t['engine']}": Death(t["pid"]) for t in status["templates"]}
    found |= {f"replica {r['id']}": Death(r["pid"]) for r in status["replicas"]}
    return found
