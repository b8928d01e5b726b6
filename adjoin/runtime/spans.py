"""A run as spans, from its events: the workflow, its stages below it, their model calls below them.

Names and attributes are those of OpenTelemetry's semantic conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/); what they have no name for begins with
``adjoin.``. Neither inputs nor outputs nor what models say is in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from adjoin.errors import StageError
from adjoin.types import (
    Event,
    ModelReady,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    StageCompleted,
    StageFailed,
    StageStarted,
    Tokens,
    Usage,
    Used,
    WorkerLost,
)

Attributes: TypeAlias = Mapping[str, str | int | float]

#: A fan-out or a loop may have any number of calls; a trace of more than this helps nobody.
MOST = 1000
#: What is below a stage: ``solve[3]``, ``tree#2``, ``tree#2/draft``.
_LAST_PART = re.compile(r"(\[[^\[\]]*\]|#\d+|/[^/\[#]*)$")


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span.

    Attributes:
        parent: position of the span above it; None for the first, which is the run.
        kind: ``client`` for a call of a model, which is another process.
        start, end: seconds since the run started; before 0 it waited for its turn.
        error: the code of what it ended with; empty when it did not fail.
        message: what that error says.
    """

    name: str
    parent: int | None
    start: float
    end: float
    kind: Literal["internal", "client"] = "internal"
    attributes: Attributes = {}
    error: str = ""
    message: str = ""


def spans_of(events: Iterable[Event], waited: float = 0.0) -> list[Span]:
    """The spans of a run that has ended, the run first and each after the one above it.

    Args:
        events: in the order of the run's stream.
        waited: seconds between its acceptance and its start.
    """
    found = _Spans(waited)
    for event in events:
        found.take(event)
    return found.ended()


class _Open(msgspec.Struct, kw_only=True):
    """A stage's attempt that has not ended yet."""

    index: int
    start: float
    first_token: float | None = None


class _Spans:
    def __init__(self, waited: float) -> None:
        self._spans = [Span(name="invoke_workflow", parent=None, start=-waited, end=0.0)]
        self._open: dict[str, _Open] = {}
        self._workflow: dict[str, str | int | float] = {"gen_ai.operation.name": "invoke_workflow"}
        self._waited = waited
        self._dropped = 0
        self._at = 0.0

    def take(self, event: Event) -> None:
        at, stage, body = event.at, event.stage, event.body
        self._at = max(self._at, at)
        match body:
            case RunStarted():
                self._workflow |= {
                    "gen_ai.workflow.name": body.workflow,
                    "adjoin.workflow.version": body.version,
                }
            case StageStarted():
                self._start(event, body.worker)
            case Tokens() if (running := self._open.get(stage)) is not None:
                if running.first_token is None:
                    running.first_token = at
            case Used():
                self._called(stage, at, body)
            case ModelReady() if body.seconds > 0:
                self._loaded(stage, at, body)
            case StageCompleted():
                self._end(stage, at, _tokens(body.usage))
            case StageFailed():
                self._end(stage, at, error=body.error)
            case WorkerLost():
                lost = {"code": "transport", "message": f"worker {body.worker} was lost"}
                for name in body.stages:
                    self._end(name, at, error=lost)
            case RunCompleted() | RunFailed() | RunCancelled():
                self._close(event)

    def ended(self) -> list[Span]:
        return self._spans

    def _start(self, event: Event, worker: str) -> None:
        attributes: Attributes = {
            "adjoin.stage": event.stage,
            "adjoin.attempt": event.attempt,
            "adjoin.worker": worker,
        }
        self._end(event.stage, event.at)  # an attempt of which nothing more was heard
        index = self._add(
            Span(
                name=f"stage {event.stage}",
                parent=self._above(event.stage),
                start=event.at,
                end=event.at,
                attributes=attributes,
            )
        )
        if index is not None:
            self._open[event.stage] = _Open(index=index, start=event.at)

    def _called(self, stage: str, at: float, body: Used) -> None:
        usage = body.usage
        if not (usage.prompt or usage.generated or usage.embedded or usage.seconds):
            return  # only a wait for the model, which is a span of its own
        operation = "embeddings" if usage.embedded and not usage.generated else "chat"
        running = self._open.get(stage)
        # News of several workers may overtake each other: a call is not before its stage.
        at = max(at, 0.0 if running is None else running.start)
        start = max(at - usage.seconds, 0.0 if running is None else running.start)
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "adjoin",
            "gen_ai.request.model": body.model,
            **_tokens(usage),
        }
        if running is not None and running.first_token is not None:
            if running.first_token >= start:
                waited = running.first_token - start
                attributes["gen_ai.response.time_to_first_chunk"] = waited
            running.first_token = None  # the next call of this stage has one of its own
        name = f"{operation} {body.model}"
        self._below(stage, Span(name=name, parent=0, start=start, end=at, attributes=attributes))

    def _loaded(self, stage: str, at: float, body: ModelReady) -> None:
        attributes = {"gen_ai.request.model": body.model}
        start = max(0.0, at - body.seconds)
        name = f"wait for {body.model}"
        self._below(stage, Span(name=name, parent=0, start=start, end=at, attributes=attributes))

    def _below(self, stage: str, span: Span) -> None:
        running = self._open.get(stage)
        parent = self._above(stage) if running is None else running.index
        called = span.attributes.get("gen_ai.operation.name")
        kind: Literal["internal", "client"] = "client" if called else "internal"
        self._add(msgspec.structs.replace(span, parent=parent, kind=kind))

    def _end(
        self,
        stage: str,
        at: float,
        attributes: Attributes | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        if (running := self._open.pop(stage, None)) is None:
            return
        span = self._spans[running.index]
        self._spans[running.index] = _closed(span, max(at, span.start), attributes or {}, error)

    def _close(self, event: Event) -> None:
        body = event.body
        error: Mapping[str, Any] | None = None
        if isinstance(body, RunCompleted):
            self._workflow |= _tokens(body.usage)
        elif isinstance(body, RunFailed):
            error = body.error
        elif isinstance(body, RunCancelled):
            error = {"code": "cancelled", "message": body.reason}
        for stage in list(self._open):
            self._end(stage, event.at, error=error and {"code": "cancelled"})
        self._workflow["adjoin.run"] = event.run
        if self._waited > 0:
            self._workflow["adjoin.queued_seconds"] = self._waited
        if self._dropped:
            self._workflow["adjoin.spans_dropped"] = self._dropped
        name = f"invoke_workflow {self._workflow.get('gen_ai.workflow.name', '')}".rstrip()
        root = msgspec.structs.replace(self._spans[0], name=name)
        self._spans[0] = _closed(root, max(self._at, event.at), self._workflow, error)

    def _above(self, stage: str) -> int:
        while (shorter := _LAST_PART.sub("", stage)) not in ("", stage):
            stage = shorter
            if (running := self._open.get(stage)) is not None:
                return running.index
        return 0

    def _add(self, span: Span) -> int | None:
        if len(self._spans) >= MOST:
            self._dropped += 1
            return None
        self._spans.append(span)
        return len(self._spans) - 1


def _closed(
    span: Span, end: float, attributes: Attributes, error: Mapping[str, Any] | None
) -> Span:
    code = message = ""
    if error is not None:
        code, message = str(error.get("code", "internal")), str(error.get("message", ""))
        if code == StageError.code:  # what it failed with says more
            code = str((error.get("details") or {}).get("cause") or code)
        attributes = {**attributes, "error.type": code}
    return msgspec.structs.replace(
        span, end=end, attributes={**span.attributes, **attributes}, error=code, message=message
    )


def _tokens(usage: Usage) -> dict[str, int]:
    """Token counts under their conventional names; those of embedded texts are input."""
    counts = {
        "gen_ai.usage.input_tokens": usage.prompt + usage.embedded,
        "gen_ai.usage.output_tokens": usage.generated,
        "gen_ai.usage.cache_read.input_tokens": usage.cached,
    }
    return {name: count for name, count in counts.items() if count}
