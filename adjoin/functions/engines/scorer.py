"""Cross-encoders with sentence-transformers: query and text are read together, for a score."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from adjoin.errors import EngineError, InputError, ModelError
from adjoin.functions.engines.base import (
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
from adjoin.types import Usage

#: Pairs of one step: short enough that a question is not long behind bulk work.
_STEP_PAIRS = 16
#: Texts that may wait inside.
_CAPACITY = 256
#: Tokens of a pair, where the model does not say.
_LENGTH = 512
_ARGS = frozenset({"max_seq_length", "step_pairs"})


def load_scorer(spec: LoadSpec, device: str) -> Scorer:
    """Raises :class:`ModelError` when the model gives more than one number for a pair."""
    from sentence_transformers import CrossEncoder

    check_args("transformers", spec.args, _ARGS)
    model = CrossEncoder(spec.path, device=device, local_files_only=True, trust_remote_code=False)
    if model.num_labels != 1:
        raise ModelError(
            f"it tells {model.num_labels} classes apart, it gives no score",
            where=f"model {spec.model!r}",
            hint="name a cross-encoder with one label",
        )
    model.eval()
    # Renamed in sentence-transformers 6.
    name = "max_seq_length" if hasattr(type(model), "max_seq_length") else "max_length"
    length = positive_arg(spec.args, "max_seq_length", int(getattr(model, name) or _LENGTH))
    setattr(model, name, length)
    step_pairs = positive_arg(spec.args, "step_pairs", _STEP_PAIRS)
    return Scorer(spec.model, model, length, step_pairs)


class _Running(msgspec.Struct):
    query: str
    texts: list[str]
    tokens: int
    scores: list[float] = []


class Scorer:
    """Requests in order of arrival, a batch of pairs of the first one a step."""

    capabilities = frozenset({"score"})
    capacity = _CAPACITY
    dimension = 0

    def __init__(self, name: str, model: Any, length: int, step_pairs: int) -> None:
        self._name = name
        self._model = model
        self._step_pairs = step_pairs
        self.context = length
        self._order: deque[str] = deque()
        self._running: dict[str, _Running] = {}
        self._tokens = 0

    def add(self, request: Request) -> None:
        if not isinstance(request, ScoreRequest):
            raise ModelError("it only scores", where=f"model {self._name!r}")
        if not request.texts:
            raise InputError("no text to score")
        counted = self._model.tokenizer(
            [request.query] * len(request.texts),
            request.texts,
            truncation=True,
            max_length=self.context,
        )
        tokens = sum(map(len, counted["input_ids"]))
        self._running[request.id] = _Running(request.query, list(request.texts), tokens)
        self._order.append(request.id)

    def abort(self, ids: Sequence[str]) -> list[Output]:
        known = [id for id in ids if self._running.pop(id, None) is not None]
        self._order = deque(id for id in self._order if id not in known)
        return [Finished(id=id) for id in known]

    def step(self) -> list[Output]:
        if not self._order:
            return []
        id = self._order[0]
        running = self._running[id]
        at = len(running.scores)
        texts = running.texts[at : at + self._step_pairs]
        running.scores += self._predict(running.query, texts)
        return [self._finish(id)] if len(running.scores) == len(running.texts) else []

    def interrupt(self) -> None:
        """A step never waits."""

    def close(self) -> None:
        self._order.clear()
        self._running.clear()

    def figures(self) -> tuple[Family, ...]:
        return ()

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self._running), embedded_tokens=self._tokens)

    def _predict(self, query: str, texts: list[str]) -> list[float]:
        pairs = [(query, text) for text in texts]
        scores = self._model.predict(pairs, batch_size=len(pairs), show_progress_bar=False)
        return [float(score) for score in scores]

    def _finish(self, id: str) -> Output:
        running = self._running.pop(id)
        self._order.remove(id)
        self._tokens += running.tokens
        usage = Usage(embedded=running.tokens)
        if not np.isfinite(running.scores).all():
            return Failed.of(id, EngineError("the model made scores that are not numbers"), usage)
        return Scored(id=id, scores=tuple(running.scores), usage=usage)
