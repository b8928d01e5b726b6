"""Dask: one task a stage, on a cluster of one worker process."""

from __future__ import annotations

from typing import Any

from distributed import Client, LocalCluster
from payloads import is_quick, payload, tell, timed


def same(value: Any) -> Any:
    return value


SETTINGS = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}


def main() -> None:
    with (
        LocalCluster(**SETTINGS) as cluster,
        Client(cluster) as client,
    ):

        def run(kind: str) -> Any:
            made = client.submit(payload, kind, pure=False)
            second = client.submit(same, made, pure=False)
            third = client.submit(same, second, pure=False)
            return client.submit(len, third, pure=False).result()

        shown = SETTINGS | {"tasks": "one a stage, pure=False"}
        tell(timed(run, quick=is_quick()), "distributed", shown)


if __name__ == "__main__":
    main()
