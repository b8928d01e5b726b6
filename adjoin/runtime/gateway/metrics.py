"""What Prometheus is told, in a registry of the app's own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adjoin.runtime.gateway.deployments import Deployments
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

    def text(self, status: Mapping[str, Any]) -> bytes:
        """Everything, with the engines of a cluster of this status."""
        engines = CollectorRegistry()
        engines.register(_Engines(status))
        return generate_latest(self._registry) + generate_latest(engines)


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
    """What the replicas' engines told their hosts."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        labels = ("host", "model", "replica")
        running = GaugeMetricFamily("adjoin_engine_running", "Requests in it.", labels=labels)
        queued = GaugeMetricFamily("adjoin_engine_queued", "Requests before it.", labels=labels)
        memory = GaugeMetricFamily("adjoin_engine_bytes", "Resident memory.", labels=labels)
        tokens = CounterMetricFamily("adjoin_engine_tokens", "Tokens.", labels=(*labels, "kind"))
        for host, about in self._status.get("hosts", {}).items():
            for each in about["replicas"]:
                names = (host, each["model"], each["id"])
                running.add_metric(names, each["running"] or 0)
                queued.add_metric(names, each["queued"] or 0)
                memory.add_metric(names, each["rss"] or 0)
                for kind, count in each["totals"].items():
                    if kind.endswith("_tokens"):
                        tokens.add_metric((*names, kind.removesuffix("_tokens")), count)
        yield from (running, queued, memory, tokens)
