"""What the engines of a cluster tell Prometheus, gathered from its hosts and put together."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client.core import Metric

from adjoin.errors import AdjoinError
from adjoin.functions.engines.families import MAX_SAMPLES, Family
from adjoin.runtime import protocol as p
from adjoin.runtime.cluster import Cluster

#: How long a host is waited for, in seconds; a scrape must not hang on one that does not answer.
_PATIENCE_S = 0.5
#: An engine's name before the colon, so that none is taken for one of the service's.
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*:[a-zA-Z0-9_]+")
_KINDS = frozenset({"counter", "gauge", "histogram", "summary", "info", "unknown"})
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
#: Labels that say where a figure is from.
PLACE = ("host", "model", "replica")


async def ask_hosts(cluster: Cluster) -> dict[str, dict[str, Any] | None]:
    """What each host runs, with its engines' figures; None of a host that did not answer in time.

    All are asked at once.
    """
    workers = {worker.host: worker.name for worker in cluster.topology.workers}
    told = await asyncio.gather(*(_ask(cluster, worker) for worker in workers.values()))
    return dict(zip(workers, told, strict=True))


async def _ask(cluster: Cluster, worker: str) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            about: dict[str, Any] = await cluster.call(worker, p.HostStatus(figures=True))
            return about
    except (TimeoutError, AdjoinError):
        return None


def replicas(hosts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The replicas of all hosts, each with the values of :data:`PLACE`."""
    for host, about in hosts.items():
        for each in about["replicas"]:
            yield (host, each["model"], each["id"]), each


def families_of(replica: Mapping[str, Any]) -> tuple[Family, ...] | None:
    """The figures of a replica's engine; None when it was asked and did not tell them in time.

    Raises:
        msgspec.DecodeError: they are none.
    """
    if (packed := replica.get("figures")) is None:
        return None
    return msgspec.msgpack.decode(packed, type=tuple[Family, ...])


def merge(told: Iterable[tuple[tuple[str, ...], tuple[Family, ...]]]) -> list[Metric]:
    """The figures of replicas as one exposition: each family once, with all its replicas.

    Labels of :data:`PLACE` are added; an engine's own label of such a name becomes ``exported_…``,
    as Prometheus does it. What Prometheus could not read is left out, and a family whose type
    differs from that of the first replica that has it.
    """
    merged: dict[str, Metric] = {}
    for place, families in told:
        where = dict(zip(PLACE, place, strict=True))
        room = MAX_SAMPLES
        for family in families:
            room -= len(family.samples)
            if room < 0 or not _NAME.fullmatch(family.name) or family.kind not in _KINDS:
                continue
            metric = merged.setdefault(family.name, Metric(family.name, family.help, family.kind))
            if metric.type != family.kind:
                continue
            for sample in family.samples:
                if _NAME.fullmatch(sample.name) and sample.name.startswith(family.name):
                    metric.add_sample(sample.name, _labels(sample.labels) | where, sample.value)
    return list(merged.values())


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    return {
        f"exported_{name}" if name in PLACE else name: value
        for name, value in labels.items()
        if _LABEL.fullmatch(name)
    }
