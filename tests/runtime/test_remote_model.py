from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from adjoin.runtime.remote_model import RemoteModel
from adjoin.types import Body, Usage, Used


async def test_waiting_for_a_model_to_ask_what_it_can_do_is_counted_once() -> None:
    waits = [3.0, 0.0]
    seen: list[Body] = []

    async def find() -> tuple[Any, float]:
        return SimpleNamespace(started=SimpleNamespace(capabilities=("schema",))), waits.pop(0)

    model = RemoteModel("small", find, seen.append)
    assert await model.capabilities() == {"schema"}
    assert await model.capabilities() == {"schema"}
    assert seen == [Used(model="small", usage=Usage(cold_start_seconds=3.0))]
