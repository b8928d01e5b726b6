"""Values that cannot leave their process, in the real driver and the real executor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "dag"))

from in_process import InProcessCluster

import adjoin
from adjoin import Settings
from adjoin.runtime.driver import Driver
from adjoin.types import RunPlanned

MADE: list[Any] = []


class Connection:
    pass


@adjoin.function
async def connect(text: str) -> Connection:
    MADE.append(Connection())
    return MADE[-1]  # type: ignore[no-any-return]


@adjoin.function
async def elsewhere(text: str) -> str:
    return text


@adjoin.function
async def same(link: Connection, text: str) -> bool:
    return link is MADE[-1]


@adjoin.workflow
def there_and_back(text: str) -> Any:
    link = connect(text)
    away = elsewhere.options(avoid="link")(text)
    return same.options(colocate="link")(link, away)


@adjoin.workflow
def beside(text: str) -> Any:
    link = connect(text)
    return same.options(colocate="link")(link, text)


async def run(flow: Any) -> tuple[Any, dict[str, str]]:
    known = {function.ref: function for function in (connect, elsewhere, same)}
    cluster = InProcessCluster(resolve=lambda ref, _: known[ref])
    started = Driver(cluster, Settings()).start(flow.graph, {"text": "a"})  # type: ignore[arg-type]
    events = [event.body async for event in started.stream()]
    (plan,) = [body for body in events if isinstance(body, RunPlanned)]
    result = await started.done
    assert not any(segment.kept for segment in cluster.segments)
    return result, plan.placement


async def test_a_neighbour_gets_the_very_object() -> None:
    assert (await run(beside))[0] is True


async def test_so_does_one_in_another_segment_of_the_worker() -> None:
    """What it also waits for comes from elsewhere, so that it is in a segment of its own."""
    result, placement = await run(there_and_back)
    assert placement["away"] != placement["link"]
    assert result is True
