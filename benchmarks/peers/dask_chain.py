"""Dask: one task a stage, on a cluster of one worker process."""

from __future__ import annotations

from typing import Any

from distributed import Client, LocalCluster
from payloads import payload, tell, timed


def same(value: Any) -> Any:
    return value


def main() -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):

        def run(kind: str) -> Any:
            made = client.submit(payload, kind, pure=False)
            second = client.submit(same, made, pure=False)
            third = client.submit(same, second, pure=False)
            return client.submit(len, third, pure=False).result()

        tell(timed(run))


if __name__ == "__main__":
    main()
