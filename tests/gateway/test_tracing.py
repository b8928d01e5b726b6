"""Spans as OpenTelemetry gets them: in memory, and over OTLP from a service."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from texts import text

from adjoin.runtime.gateway.records import RunRecord
from adjoin.runtime.gateway.tracing import Tracing, configured, open_tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
INVOKE = "/api/v1/workflows/traced/invoke"


class Told(Tracing):
    """Says when a run's spans have been made, which is after its answer was sent."""

    def __init__(self, provider: Any) -> None:
        super().__init__(provider)
        self.made = threading.Event()

    def ended(self, record: RunRecord) -> None:
        super().ended(record)
        self.made.set()


@pytest.fixture
def sent(served: Any) -> Iterator[Callable[[], Any]]:
    """The spans of the one run that a test makes, kept in memory."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs adjoin[otel]")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    service = served.app.state.service
    service.tracing = told = Told(provider)

    def spans() -> Any:
        assert told.made.wait(30)
        return exporter.get_finished_spans()

    yield spans
    service.tracing = None
    provider.shutdown()


def test_a_run_is_part_of_its_requests_trace(client: Any, sent: Callable[[], Any]) -> None:
    client.put("/api/v1/workflows/traced", content=text("traced"))
    answer = client.post(INVOKE, json={"text": "a"}, headers={"traceparent": PARENT})
    assert answer.status_code == 200
    spans = {span.name: span for span in sent()}
    root, stage = spans["invoke_workflow traced"], spans["stage only"]
    assert f"{root.context.trace_id:032x}" == f"{stage.context.trace_id:032x}" == PARENT[3:35]
    assert f"{root.parent.span_id:016x}" == PARENT[36:52]
    assert stage.parent.span_id == root.context.span_id
    assert root.attributes["adjoin.run"] == answer.headers["x-run-id"]
    assert root.start_time <= stage.start_time <= stage.end_time <= root.end_time
    assert root.status.is_ok or root.status.is_unset


@pytest.mark.parametrize("parent", ["", "00-0-0-01", "x" * 5000])
def test_a_header_that_names_no_trace_begins_one(
    client: Any, sent: Callable[[], Any], parent: str
) -> None:
    client.put("/api/v1/workflows/traced", content=text("traced"))
    client.post(INVOKE, json={"text": "a"}, headers={"traceparent": parent})
    spans = {span.name: span for span in sent()}
    assert spans["invoke_workflow traced"].parent is None


def test_a_run_that_fails_is_an_error(client: Any, sent: Callable[[], Any]) -> None:
    client.put("/api/v1/workflows/traced", content=text("traced", "fail"))
    client.post(INVOKE, json={"text": "a"})
    spans = sent()
    assert [span.attributes["error.type"] for span in spans] == ["function", "function"]
    assert not any(span.status.is_ok or span.status.is_unset for span in spans)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], expected: bool) -> None:
    assert configured(environment) is expected


def test_without_them_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys; from adjoin.runtime.gateway import create_app, tracing;"
        "assert tracing.open_tracing() is None; create_app();"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_missing_extra_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert open_tracing() is None
    assert "adjoin[otel]" in caplog.text


def test_a_collector_that_does_not_answer_holds_up_no_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adjoin.runtime.gateway.tracing._CLOSE_S", 0.01)
    answered = threading.Event()
    provider: Any = SimpleNamespace(get_tracer=lambda *_: None, shutdown=answered.wait)
    try:
        Tracing(provider).close()
        assert "not sent within" in caplog.text
    finally:
        answered.set()


class _Collector(ThreadingHTTPServer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.received: list[tuple[str, bytes]] = []


class _Receiver(BaseHTTPRequestHandler):
    server: _Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


def test_the_end_of_a_service_sends_what_is_left(
    served: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs adjoin[otel]")
    collector = _Collector()
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
        service = served.app.state.service
        opened = open_tracing()
        assert opened is not None
        service.tracing = tracing = Told(opened.provider)
        client.put("/api/v1/workflows/traced", content=text("traced"))
        client.post(INVOKE, json={"text": "secret"})
        assert tracing.made.wait(30)
        tracing.close()
    finally:
        served.app.state.service.tracing = None
        collector.shutdown()
        thread.join()
        collector.server_close()
    ((path, body),) = collector.received
    assert path == "/v1/traces"
    assert b"invoke_workflow traced" in body and b"shop" in body
    assert b"secret" not in body and b"SECRET" not in body
