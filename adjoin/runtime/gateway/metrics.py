"""What Prometheus is told, in a registry of the app's own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adjoin.functions.engines.families import Family
from adjoin.runtime.gateway.deployments import Deployments
from adjoin.runtime.gateway.figures import PLACE, families_of, merge, replicas
from adjoin.runtime.gateway.records import RunRecord

#: From a no-op to a long chain of thought, in seconds.
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """Counters of requests and runs; what runs now is read when somebody asks."""

    def __init__(self, deployments: Deployments) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "adjoin_http_requests", "Requests.", ("method", "route", "status"), registry=registry
        )
        self._answered = Histogram(
            "adjoin_http_seconds",
            "From a request until its answer begins.",
            ("route", "status"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._open = Gauge("adjoin_http_open", "Requests being answered.", registry=registry)
        self._runs = Counter(
            "adjoin_runs", "Ended runs.", ("tenant", "workflow", "state"), registry=registry
        )
        self._seconds = Histogram(
            "adjoin_run_seconds",
            "Of runs that succeeded, without their wait.",
            ("tenant", "workflow"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "adjoin_tokens", "Tokens.", ("tenant", "workflow", "kind"), registry=registry
        )
        self._left_out = Counter(
            "adjoin_metrics_left_out",
            "Hosts that were silent, and replicas that did not tell their engine's figures.",
            ("host", "what"),
            registry=registry,
        )
        registry.register(_Gates(deployments))

    def ended(self, record: RunRecord) -> None:
        """Count a run that has ended."""
        names = (record.tenant, record.deployment.name)
        self._runs.labels(*names, record.state).inc()
        if record.state == "succeeded":
            self._seconds.labels(*names).observe(record.seconds)
        usage = record.usage
        for kind in ("prompt", "cached", "generated", "embedded"):
            if count := getattr(usage, kind):
                self._tokens.labels(*names, kind).inc(count)

    def counting(self, app: ASGIApp) -> ASGIApp:
        """The app, with its requests counted by the route's pattern, never by a caller's path."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return

            began = time.perf_counter()

            async def seen(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = getattr(scope.get("route"), "path", "none")
                    taken = time.perf_counter() - began
                    self._answered.labels(route, message["status"]).observe(taken)
                    method = scope["method"] if scope["method"] in _METHODS else "other"
                    self.requests.labels(method, route, message["status"]).inc()
                await send(message)

            with self._open.track_inprogress():
                await app(scope, receive, seen)

        return counted

    def text(self, hosts: Mapping[str, Mapping[str, Any] | None]) -> bytes:
        """Everything, with the engines of a cluster whose hosts said this; None for silence."""
        for host, about in hosts.items():
            if about is None:
                self._left_out.labels(host, "host").inc()
        heard = {host: about for host, about in hosts.items() if about is not None}
        engines = CollectorRegistry()
        engines.register(_Engines(heard, self._left_out))
        # What is left out is counted by then.
        told = generate_latest(engines)
        return generate_latest(self._registry) + told


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class _Gates(Collector):
    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ("tenant", "workflow")
        running = GaugeMetricFamily("adjoin_runs_running", "Runs that run.", labels=labels)
        waiting = GaugeMetricFamily("adjoin_runs_waiting", "Runs in a queue.", labels=labels)
        for each in self._deployments.current():
            running.add_metric((each.tenant, each.name), each.gate.load.running)
            waiting.add_metric((each.tenant, each.name), each.gate.load.waiting)
        yield running
        yield waiting


class _Engines(Collector):
    """What the replicas tell their hosts, and their engines' own figures."""

    def __init__(self, hosts: Mapping[str, Mapping[str, Any]], left_out: Counter) -> None:
        self._hosts = hosts
        self._left_out = left_out

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily("adjoin_engine_running", "Requests in it.", labels=PLACE)
        queued = GaugeMetricFamily("adjoin_engine_queued", "Requests before it.", labels=PLACE)
        memory = GaugeMetricFamily("adjoin_engine_bytes", "Resident memory.", labels=PLACE)
        tokens = CounterMetricFamily("adjoin_engine_tokens", "Tokens.", labels=(*PLACE, "kind"))
        for place, each in replicas(self._hosts):
            running.add_metric(place, each["running"] or 0)
            queued.add_metric(place, each["queued"] or 0)
            memory.add_metric(place, each["rss"] or 0)
            for kind, count in each["totals"].items():
                if kind.endswith("_tokens"):
                    tokens.add_metric((*place, kind.removesuffix("_tokens")), count)
        yield from (running, queued, memory, tokens)
        yield from merge(self._own())

    def _own(self) -> Iterator[tuple[tuple[str, ...], tuple[Family, ...]]]:
        for place, each in replicas(self._hosts):
            try:
                families = families_of(each)
            except msgspec.DecodeError:
                families = None
            if families is not None:
                yield place, families
            elif each["state"] == "ready":
                self._left_out.labels(place[0], "replica").inc()
