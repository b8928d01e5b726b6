"""Requests of the OpenAI-compatible API as runs, and runs as their answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from adjoin.errors import AdjoinError, StageError
from adjoin.runtime.gateway import problems
from adjoin.runtime.gateway.asks import Ask
from adjoin.runtime.gateway.departure import unless_left
from adjoin.runtime.gateway.deployments import Deployment
from adjoin.runtime.gateway.idempotency import durability
from adjoin.runtime.gateway.openai.form import Form, Source
from adjoin.runtime.gateway.openai.transcript import Transcript, error_events
from adjoin.runtime.gateway.records import RunRecord
from adjoin.runtime.gateway.service import Service
from adjoin.runtime.gateway.sse import HEARTBEAT, HEARTBEAT_S
from adjoin.types import Event, RunCompleted, Token, Tokens


@dataclass(frozen=True)
class Asked:
    """A request that was understood: what runs, and how its answer is written."""

    deployment: Deployment
    inputs: Mapping[str, Any]
    form: Form
    source: Source
    ask: Ask


async def respond(request: Request, service: Service, asked: Asked) -> Response:
    """Run it and answer. A client that leaves ends the run.

    A stream begins with the first token, so that what fails before has its status.

    Raises:
        AdjoinError: the run was refused, or failed before anything was sent.
    """
    form = asked.form
    follows = form.stream or form.logprobs
    plain = "generate" if asked.source.single else ""
    how = await durability(request, plain=plain)
    record = await service.begin(asked.deployment, asked.inputs, asked.ask, how, streaming=follows)
    transcript = Transcript(form, record.id, record.created)
    reading = _Reading(record, asked, transcript)

    def left() -> None:
        record.left("the client left")

    headers = {"X-Run-Id": record.id}
    if not form.stream:
        body = await unless_left(request, reading.whole(), left)
        return Response(body, headers=headers, media_type="application/json")
    parts = reading.parts()
    first = await unless_left(request, anext(parts), left)
    return _Stream(record, first, parts, headers)


@contextmanager
def without_stage(hidden: bool = True) -> Iterator[None]:
    """Of a model's own run, errors name no stage: the caller knows of none."""
    try:
        yield
    except StageError as error:
        if hidden:
            error.where = ""
        raise


class _Reading:
    """A run being read."""

    def __init__(self, record: RunRecord, asked: Asked, transcript: Transcript) -> None:
        self._record = record
        self._asked = asked
        self._transcript = transcript

    async def whole(self) -> bytes:
        tokens: list[Token] = []
        with without_stage(self._asked.source.single):
            if self._asked.form.logprobs:
                ended = await self._followed(tokens)
            else:
                ended = await self._record.outcome()
        found = self._asked.source.answers(ended.outputs)
        return self._transcript.whole(found, ended.usage, tokens, self._extension(ended))

    async def _followed(self, tokens: list[Token]) -> RunCompleted:
        """What the run returned; its tokens are put into the list."""
        async with aclosing(self._record.live(HEARTBEAT_S)) as batches:
            async for events in batches:
                tokens += _tokens(events, self._asked.source.stage)
                if events and isinstance(ended := events[-1].body, RunCompleted):
                    return ended
        return await self._record.outcome()

    async def parts(self) -> AsyncGenerator[bytes]:
        """Pieces of the stream, with signs of life."""
        stage = self._asked.source.stage
        with without_stage(self._asked.source.single):
            async with aclosing(self._record.live(HEARTBEAT_S)) as batches:
                async for events in batches:
                    if not events:
                        yield HEARTBEAT
                        continue
                    if data := self._transcript.chunks(_tokens(events, stage)):
                        yield data
                    if isinstance(ended := events[-1].body, RunCompleted):
                        yield self._ending(ended)

    def _ending(self, ended: RunCompleted) -> bytes:
        found = self._asked.source.answers(ended.outputs)
        told = self._extension(ended)
        if told is not None and self._transcript.differs(found):
            told["answer"] = found[0].text
        return self._transcript.ending(found, ended.usage, told)

    def _extension(self, ended: RunCompleted) -> dict[str, Any] | None:
        extend = self._asked.source.extension
        return None if extend is None else extend(self._record.id, ended.outputs)


def _tokens(events: Sequence[Event], stage: str) -> list[Token]:
    return [
        token
        for event in events
        if isinstance(event.body, Tokens) and event.stage == stage
        for token in event.body.tokens
    ]


class _Stream(StreamingResponse):
    """Server-sent events of an answer; a reader who leaves ends the run."""

    def __init__(
        self, record: RunRecord, first: bytes, parts: AsyncGenerator[bytes], headers: dict[str, str]
    ) -> None:
        super().__init__(
            _pieces(first, parts),
            media_type="text/event-stream",
            headers={**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if not self._record.ended:
                self._record.left("the reader left")


async def _pieces(first: bytes, parts: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """The stream; an error ends it in the way that OpenAI's clients expect."""
    yield first
    try:
        async for data in parts:
            yield data
    except AdjoinError as error:
        yield error_events(problems.openai_body(problems.problem_of(error)))
