from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adjoin.errors import InputError, ModelError
from adjoin.functions.engines.base import (
    Delta,
    Embedded,
    EmbedRequest,
    Failed,
    GenerateRequest,
)
from adjoin.functions.engines.embedder import Embedder, batches
from adjoin.functions.engines.embedder import _Text as Text
from adjoin.types import Sampling, Usage, Vector


class Model:
    """Stands in for a SentenceTransformer: a text's vector is its length, written twice."""

    max_seq_length = 8
    value = 1.0

    def __init__(self) -> None:
        self.passes: list[list[str]] = []

    def tokenizer(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[0] * min(len(text), 8) for text in texts]}

    def get_embedding_dimension(self) -> int:
        return 2

    def encode(self, texts: list[str], **_: Any) -> Vector:
        self.passes.append(texts)
        return np.array([[len(text), self.value] for text in texts], dtype=np.float32)


def embedder(model: Model, batch: int = 8, step: int = 16) -> Embedder:
    return Embedder("m", model, batch_tokens=batch, step_tokens=step)


def test_texts_of_several_requests_share_passes_by_length() -> None:
    model = Model()
    engine = embedder(model)
    engine.add(EmbedRequest(id="a", texts=["1234", "1"]))
    engine.add(EmbedRequest(id="b", texts=["12", "1234"]))
    outputs = engine.step()
    assert model.passes == [["1", "12"], ["1234", "1234"]]
    vectors = {output.id: output.vectors for output in outputs if isinstance(output, Embedded)}
    assert vectors["a"][:, 0].tolist() == [4, 1]
    assert vectors["b"][:, 0].tolist() == [2, 4]
    assert engine.stats().embedded_tokens == 11


def test_a_step_is_bounded_and_a_request_ends_when_all_its_texts_are_done() -> None:
    engine = embedder(Model(), step=4)
    engine.add(EmbedRequest(id="a", texts=["12", "12", "12"]))
    told = Delta(id="a", usage=Usage(embedded=4))
    assert engine.step() == [told], "what was embedded so far is counted"
    (output,) = engine.step()
    assert isinstance(output, Embedded)
    assert output.rows == 3


def test_a_text_longer_than_a_step_is_still_embedded() -> None:
    engine = embedder(Model(), step=2)
    engine.add(EmbedRequest(id="a", texts=["12345678"]))
    assert [output.id for output in engine.step()] == ["a"]


def test_vectors_that_are_not_numbers_fail_their_request() -> None:
    model = Model()
    model.value = float("nan")
    engine = embedder(model)
    engine.add(EmbedRequest(id="a", texts=["x"]))
    (output,) = engine.step()
    assert isinstance(output, Failed)
    assert "not numbers" in output.error["message"]


def test_what_it_cannot_do_is_refused() -> None:
    engine = embedder(Model())
    with pytest.raises(InputError, match="no text"):
        engine.add(EmbedRequest(id="a", texts=[]))
    with pytest.raises(ModelError, match="embeds"):
        engine.add(GenerateRequest(id="a", prompt="x", sampling=Sampling()))
    assert engine.stats().running == 0


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_batches_hold_every_text_once_and_padded_fit_the_limit(
    lengths: list[int], limit: int
) -> None:
    texts = [Text("r", row, "", tokens) for row, tokens in enumerate(lengths)]
    cut = batches(texts, limit)
    assert sorted(text.row for batch in cut for text in batch) == list(range(len(lengths)))
    for batch in cut:
        longest = max(text.tokens for text in batch)
        assert len(batch) == 1 or len(batch) * longest <= limit
