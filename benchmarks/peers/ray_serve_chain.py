"""Ray Serve: four deployments, one replica each, composed by handles; responses are passed on as
they are, so that the values go from replica to replica, as its documentation advises."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from typing import Any

import ray
from payloads import is_quick, payload, tell, timed_async
from ray import serve


@serve.deployment
class Make:
    async def __call__(self, kind: str) -> Any:
        return payload(kind)


@serve.deployment
class Same:
    async def __call__(self, value: Any) -> Any:
        return value


@serve.deployment
class Size:
    async def __call__(self, value: Any) -> int:
        return len(value)


@serve.deployment
class Chain:
    def __init__(self, make: Any, second: Any, third: Any, size: Any) -> None:
        self.stages = (make, second, third, size)

    async def __call__(self, kind: str) -> int:
        value: Any = kind
        for stage in self.stages:
            value = stage.remote(value)
        return await value


#: More than there are, since each replica asks for one.
SETTINGS = {"include_dashboard": False, "num_cpus": 8}


async def measure() -> dict[str, float]:
    handle = serve.get_app_handle("chain")

    async def run(kind: str) -> Any:
        return await handle.remote(kind)

    return await timed_async(run, quick=is_quick())


def main() -> None:
    with contextlib.redirect_stdout(sys.stderr):
        ray.init(logging_level=logging.ERROR, **SETTINGS)
        chain = Chain.bind(
            Make.bind(),
            Same.options(name="second").bind(),
            Same.options(name="third").bind(),
            Size.bind(),
        )
        serve.run(chain, name="chain", route_prefix=None)
        found = asyncio.run(measure())
        serve.shutdown()
        ray.shutdown()
    tell(found, "ray", SETTINGS | {"deployments": 5, "replicas of each": 1, "calls": "handles"})


if __name__ == "__main__":
    main()
