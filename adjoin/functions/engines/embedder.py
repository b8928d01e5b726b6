"""Embedding with sentence-transformers, batched across requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from adjoin.errors import EngineError, InputError, ModelError
from adjoin.functions.engines.base import (
    Embedded,
    EmbedRequest,
    EngineStats,
    Failed,
    Finished,
    LoadSpec,
    Output,
    Request,
    check_args,
    positive_arg,
)
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


class _Running(msgspec.Struct):
    rows: list[Vector | None]
    tokens: int

    @property
    def whole(self) -> bool:
        return all(row is not None for row in self.rows)


class Embedder:
    """All waiting texts, in order of arrival, are cut into batches of similar length."""

    capabilities = frozenset({"embed"})
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
        if not isinstance(request, EmbedRequest):
            raise ModelError("it embeds, it does not generate", where=f"model {self._name!r}")
        if not request.texts:
            raise InputError("no text to embed")
        counts = self._count(request.texts)
        self._running[request.id] = _Running([None] * len(counts), sum(counts))
        for row, (text, tokens) in enumerate(zip(request.texts, counts, strict=True)):
            self._waiting.append(_Text(request.id, row, text, tokens))

    def abort(self, ids: Sequence[str]) -> list[Output]:
        known = [id for id in ids if self._running.pop(id, None) is not None]
        self._waiting = deque(text for text in self._waiting if text.request not in known)
        return [Finished(id=id) for id in known]

    def step(self) -> list[Output]:
        texts = self._take()
        touched = list(dict.fromkeys(text.request for text in texts))
        for batch in batches(texts, self._batch_tokens):
            for text, vector in zip(batch, self._encode(batch), strict=True):
                self._running[text.request].rows[text.row] = vector
        return [self._finish(id) for id in touched if self._running[id].whole]

    def interrupt(self) -> None:
        """A step never waits."""

    def close(self) -> None:
        self._waiting.clear()
        self._running.clear()

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

    def _encode(self, batch: list[_Text]) -> Vector:
        vectors = self._model.encode(
            [text.text for text in batch],
            batch_size=len(batch),
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32)

    def _finish(self, id: str) -> Output:
        running = self._running.pop(id)
        vectors = np.stack([row for row in running.rows if row is not None])
        self._embedded += running.tokens
        usage = Usage(embedded=running.tokens)
        if not np.isfinite(vectors).all():
            return Failed.of(id, EngineError("the model made vectors that are not numbers"), usage)
        return Embedded.of(id, vectors, usage)


def batches(texts: Sequence[_Text], limit: int) -> list[list[_Text]]:
    """Texts sorted by length and cut so that no batch, padded to its longest, exceeds ``limit``."""
    cut: list[list[_Text]] = []
    for text in sorted(texts, key=lambda text: text.tokens):
        if cut and (len(cut[-1]) + 1) * text.tokens <= limit:
            cut[-1].append(text)
        else:
            cut.append([text])
    return cut
