from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from host_fixtures import attached

from adjoin.runtime.host_link import HostLink
from adjoin.settings import Settings


@pytest.fixture(scope="module")
def host_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of one host for a module's tests, which has ended after them."""
    directory = tmp_path_factory.mktemp("host")
    yield directory

    async def end() -> None:
        async with attached(directory):
            pass

    asyncio.run(end())


@pytest.fixture
async def link(host_directory: Path) -> AsyncIterator[HostLink]:
    """An agent's link to the module's host."""
    settings = Settings(home=host_directory / "home", host_linger_s=60)
    attached_link = await HostLink.attach(host_directory, settings)
    yield attached_link
    await attached_link.detach()
