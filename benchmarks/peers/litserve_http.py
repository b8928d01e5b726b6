"""LitServe: one API whose `predict` calls four functions that do nothing, in one worker process. It
knows no stages: nothing is placed, retried or seen between them. Prints its settings and serves."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from typing import Any

import litserve

PORT = int(sys.argv[1])


def same(text: str) -> str:
    return text


class Chain(litserve.LitAPI):  # type: ignore[misc]  # not typed
    def setup(self, device: Any) -> None:
        self.stages = (same, same, same, len)

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def predict(self, value: Any) -> Any:
        for stage in self.stages:
            value = stage(value)
        return value

    def encode_response(self, output: int) -> dict[str, int]:
        return {"output": output}


def main() -> None:
    settings = {"accelerator": "cpu", "workers_per_device": 1, "fast_queue": True}
    said = {
        "package": "litserve",
        "version": importlib.metadata.version("litserve"),
        "python": platform.python_version(),
        "settings": settings,
    }
    print(json.dumps(said), flush=True)
    server = litserve.LitServer(Chain(api_path="/chain"), **settings)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="error")


if __name__ == "__main__":
    main()
