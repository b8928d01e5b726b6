"""Spans of runs to OpenTelemetry: made from the events of each that has ended, sent when the
standard variables say where to. Without them nothing of OpenTelemetry is imported."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request

from adjoin import __version__
from adjoin.runtime.gateway.records import RunRecord
from adjoin.runtime.spans import spans_of
from adjoin.types import Event

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

#: https://www.w3.org/TR/trace-context/
_HEADERS = ("traceparent", "tracestate")
_CLOSE_S = 3.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_log = logging.getLogger("adjoin.gateway")


def trace_of(request: Request) -> dict[str, str]:
    """The trace that a request is part of, as its headers say."""
    return {name: value for name in _HEADERS if (value := request.headers.get(name))}


class Tracing:
    """Sends the spans of each run that has ended, from a thread of OpenTelemetry's own."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("adjoin", __version__)

    def ended(self, record: RunRecord) -> None:
        from opentelemetry import trace
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        above = TraceContextTextMapPropagator().extract(record.trace)
        events = (msgspec.json.decode(data, type=Event) for _, data in record.kept)
        contexts: list[Context] = []
        for each in spans_of(events, record.waited):
            span = self._tracer.start_span(
                each.name,
                above if each.parent is None else contexts[each.parent],
                kind=SpanKind.CLIENT if each.kind == "client" else SpanKind.INTERNAL,
                attributes=each.attributes,
                start_time=_nanoseconds(record.started + each.start),
            )
            if each.error:
                span.set_status(Status(StatusCode.ERROR, each.message))
            contexts.append(trace.set_span_in_context(span))
            span.end(_nanoseconds(record.started + each.end))

    def close(self) -> None:
        """Send what is left; blocks, but not for long: a collector that is gone holds up no end."""
        # The exporter tries again for many seconds. A daemon's thread does not outlive the process.
        sending = threading.Thread(target=self.provider.shutdown, daemon=True)
        sending.start()
        sending.join(_CLOSE_S)
        if sending.is_alive():
            _log.warning("the last traces were not sent within %g s", _CLOSE_S)


def configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the standard variables ask for traces over OTLP."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() != "otlp":
        return False
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)


def open_tracing() -> Tracing | None:
    """What sends spans, or None when nothing asks for that or the extra is missing."""
    if not configured():
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning("no traces are sent: install adjoin[otel]")
        return None
    resource = Resource.create({"service.name": "adjoin", "service.version": __version__})
    # What the environment says about the service comes last and wins.
    resource = resource.merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
