"""Embedding with sentence-transformers, batched across requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from adjoin.errors import EngineError, InputError, ModelError
from adjoin.functions.engines.base import (
    Delta,
    Embedded,
    EmbedRequest,
    EngineStats,
    Failed,
    Finished,
    LoadSpec,
    Output,
    Request,
    Scored,
    ScoreRequest,
    check_args,
    positive_arg,
)
from adjoin.functions.engines.families import Family
from adjoin.functions.engines.scoring import max_sim
from adjoin.types import Usage, Vector

#: Tokens that one step computes: short enough that a question is not long behind bulk work.
_STEP_TOKENS = {"cpu": 4096, "cuda": 65_536}
#: Tokens of one forward pass, padding included. On CPUs more only falls out of the caches.
_BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}
#: Texts that may wait inside; their tokens bound the work of a step.
_CAPACITY = 256
_ARGS = frozenset({"max_seq_length", "batch_tokens", "step_tokens"})


def load_embedder(spec: LoadSpec, device: str) -> Embedder:
    from sentence_transformers import SentenceTransformer

    check_args("transformers", spec.args, _ARGS)
    model = SentenceTransformer(
        spec.path, device=device, local_files_only=True, trust_remote_code=False
    )
    model.eval()
    if length := spec.args.get("max_seq_length"):
        model.max_seq_length = positive_arg(spec.args, "max_seq_length", int(length))
    return Embedder(
        spec.model,
        model,
        batch_tokens=positive_arg(spec.args, "batch_tokens", _BATCH_TOKENS[device]),
        step_tokens=positive_arg(spec.args, "step_tokens", _STEP_TOKENS[device]),
    )


class _Text(msgspec.Struct, frozen=True):
    """One text of a request, with its length in tokens as the model will see it."""

    request: str
    row: int
    text: str
    tokens: int
    #: Whether the vectors of its tokens are wanted, not one of the whole.
    apart: bool = False


class _Running(msgspec.Struct):
    """``rows`` are vectors of texts, or matrices of tokens when they are to be ``scored``: then the
    first is the query's."""

    rows: list[Vector | None]
    embedded: int = 0
    scored: bool = False

    @property
    def whole(self) -> bool:
        return all(row is not None for row in self.rows)


class Embedder:
    """All waiting texts, in order of arrival, are cut into batches of similar length."""

    capabilities = frozenset({"embed", "score"})
    capacity = _CAPACITY

    def __init__(self, name: str, model: Any, *, batch_tokens: int, step_tokens: int) -> None:
        self._name = name
        self._model = model
        self._batch_tokens = batch_tokens
        self._step_tokens = step_tokens
        self.context = int(model.max_seq_length or 512)
        # Renamed in sentence-transformers 6.
        dimension = getattr(model, "get_embedding_dimension", None)
        self.dimension = int((dimension or model.get_sentence_embedding_dimension)() or 0)
        self._waiting: deque[_Text] = deque()
        self._running: dict[str, _Running] = {}
        self._embedded = 0

    def add(self, request: Request) -> None:
        if isinstance(request, EmbedRequest):
            self._take_in(request.id, request.texts, scored=False)
        elif isinstance(request, ScoreRequest):
            self._take_in(
                request.id, request.texts and [request.query, *request.texts], scored=True
            )
        else:
            raise ModelError("it embeds and scores only", where=f"model {self._name!r}")

    def _take_in(self, id: str, texts: list[str], *, scored: bool) -> None:
        if not texts:
            raise InputError("no texts")
        counts = self._count(texts)
        self._running[id] = _Running([None] * len(counts), scored=scored)
        for row, (text, tokens) in enumerate(zip(texts, counts, strict=True)):
            self._waiting.append(_Text(id, row, text, tokens, scored))

    def abort(self, ids: Sequence[str]) -> list[Output]:
        gone = {id: running for id in ids if (running := self._running.pop(id, None)) is not None}
        self._waiting = deque(text for text in self._waiting if text.request not in gone)
        return [Finished(id=id, usage=Usage(embedded=each.embedded)) for id, each in gone.items()]

    def step(self) -> list[Output]:
        texts = self._take()
        touched = list(dict.fromkeys(text.request for text in texts))
        for apart in (False, True):
            alike = [text for text in texts if text.apart == apart]
            for batch in batches(alike, self._batch_tokens):
                for text, vector in zip(batch, self._encode(batch, apart=apart), strict=True):
                    running = self._running[text.request]
                    running.rows[text.row] = vector
                    running.embedded += text.tokens
        self._embedded += sum(text.tokens for text in texts)
        return [self._told(id) for id in touched]

    def interrupt(self) -> None:
        """A step never waits."""

    def close(self) -> None:
        self._waiting.clear()
        self._running.clear()

    def figures(self) -> tuple[Family, ...]:
        return ()

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self._running), embedded_tokens=self._embedded)

    def _count(self, texts: list[str]) -> list[int]:
        encoded = self._model.tokenizer(texts, truncation=True, max_length=self.context)
        return [len(ids) for ids in encoded["input_ids"]]

    def _take(self) -> list[_Text]:
        """First come, first served, as many as a step computes; at least one."""
        taken: list[_Text] = []
        tokens = 0
        while self._waiting and (
            not taken or tokens + self._waiting[0].tokens <= self._step_tokens
        ):
            taken.append(self._waiting.popleft())
            tokens += taken[-1].tokens
        return taken

    def _encode(self, batch: list[_Text], *, apart: bool) -> list[Vector]:
        """A unit vector for each text, ``[d]``; or its tokens ``apart``, each ``[tokens, d]``."""
        vectors = self._model.encode(
            [text.text for text in batch],
            batch_size=len(batch),
            output_value="token_embeddings" if apart else "sentence_embedding",
            normalize_embeddings=not apart,
            convert_to_numpy=not apart,
            show_progress_bar=False,
        )
        if apart:
            return [each.float().cpu().numpy() for each in vectors]
        return list(np.asarray(vectors, dtype=np.float32))

    def _told(self, id: str) -> Output:
        running = self._running[id]
        if running.whole:
            return self._finish(id)
        return Delta(id=id, usage=Usage(embedded=running.embedded))

    def _finish(self, id: str) -> Output:
        running = self._running.pop(id)
        rows = [row for row in running.rows if row is not None]
        usage = Usage(embedded=running.embedded)
        if not all(np.isfinite(row).all() for row in rows):
            return Failed.of(id, EngineError("the model made vectors that are not numbers"), usage)
        if running.scored:
            query, *texts = rows
            scores = tuple(max_sim(query, text) for text in texts)
            return Scored(id=id, scores=scores, usage=usage)
        return Embedded.of(id, np.stack(rows), usage)


def batches(texts: Sequence[_Text], limit: int) -> list[list[_Text]]:
    """Texts sorted by length and cut so that no batch, padded to its longest, exceeds ``limit``."""
    cut: list[list[_Text]] = []
    for text in sorted(texts, key=lambda text: text.tokens):
        if cut and (len(cut[-1]) + 1) * text.tokens <= limit:
            cut[-1].append(text)
        else:
            cut.append([text])
    return cut
