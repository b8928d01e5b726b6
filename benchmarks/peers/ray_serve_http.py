"""Ray Serve behind its HTTP proxy: four deployments that do nothing, composed by handles whose
responses are passed on as they are, as its documentation advises. Prints its settings, then serves
until it is ended."""

from __future__ import annotations

import json
import logging
import platform
import sys
import time
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

PORT = int(sys.argv[1])
#: More than there are, since each replica asks for one.
SETTINGS = {"include_dashboard": False, "num_cpus": 8}
REQUESTS = 64


@serve.deployment(max_ongoing_requests=REQUESTS)
class Same:
    async def __call__(self, text: str) -> str:
        return text


@serve.deployment(max_ongoing_requests=REQUESTS)
class Size:
    async def __call__(self, text: str) -> int:
        return len(text)


@serve.deployment(max_ongoing_requests=REQUESTS)
class Chain:
    def __init__(self, *stages: Any) -> None:
        self.stages = stages

    async def __call__(self, request: Request) -> dict[str, int]:
        value: Any = (await request.json())["text"]
        for stage in self.stages:
            value = stage.remote(value)
        return {"output": await value}


def main() -> None:
    ray.init(logging_level=logging.ERROR, **SETTINGS)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    stages = [Same.options(name=f"stage{n}").bind() for n in range(3)]
    serve.run(Chain.bind(*stages, Size.bind()), name="chain", route_prefix="/chain")
    said = {
        "package": "ray",
        "version": ray.__version__,
        "python": platform.python_version(),
        "settings": SETTINGS | {"replicas of each": 1, "max_ongoing_requests": REQUESTS},
    }
    print(json.dumps(said), flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
