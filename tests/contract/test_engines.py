"""The contract over all engines. Those with real models run with ``-m models``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from engine_suite import (
    PROMPT,
    EmbeddingContract,
    GenerationContract,
    ScoringContract,
    drive,
    request_of,
    tokens_of,
)

from adjoin.functions.engines import Engine, LoadSpec, find
from adjoin.functions.models import ModelStore
from adjoin.settings import Settings
from adjoin.types import Scalar

_ANSWER = "red then orange and yellow, green, blue, indigo and last of all the violet one " * 8
#: What the engines' libraries warn of is not ours to mend.
_THEIRS = "ignore"


def load(spec: LoadSpec) -> Engine:
    module = find(spec.engine).resolve()
    module.warm()
    return module.load(spec)


def real(engine: str, name: str, **args: Scalar) -> LoadSpec:
    files = ModelStore(Settings.load().home).resolve(name)
    path = str(files.path)
    return LoadSpec(model=name, engine=engine, kind=files.kind, path=path, args=args, threads=2)


class TestFakeGeneration(GenerationContract):
    @classmethod
    def load(cls) -> Engine:
        return load(LoadSpec(model="m", engine="fake", args={"answer": _ANSWER}))


class TestFakeEmbedding(EmbeddingContract):
    @classmethod
    def load(cls) -> Engine:
        return load(LoadSpec(model="m", engine="fake"))


class TestFakeScoring(ScoringContract):
    @classmethod
    def load(cls) -> Engine:
        return load(LoadSpec(model="m", engine="fake"))


@pytest.mark.models
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings(_THEIRS)
class TestVllmGeneration(GenerationContract):
    @classmethod
    def load(cls) -> Engine:
        pytest.importorskip("vllm")
        return load(real("vllm", "smollm2-135m", max_model_len=2048))

    def test_its_figures_have_vllms_names_and_are_not_in_its_log(self, engine: Engine) -> None:
        names = {family.name for family in engine.figures()}
        assert {"vllm:prompt_tokens", "vllm:generation_tokens", "vllm:kv_cache_usage_perc"} <= names
        assert all(name.startswith("vllm:") for name in names)
        assert not logging.getLogger("vllm.v1.metrics.loggers").isEnabledFor(logging.INFO)

    def test_the_likeliest_tokens_are_told_when_they_are_asked_for(self, engine: Engine) -> None:
        engine.add(request_of("top", PROMPT, max_tokens=3, logprobs=True, top_logprobs=4))
        tokens = tokens_of(drive(engine, ["top"]), "top")
        assert [len(token.top or ()) for token in tokens if token.logprob is not None] == [4] * 3
        engine.add(request_of("plain", PROMPT, max_tokens=3, logprobs=True))
        plain = tokens_of(drive(engine, ["plain"]), "plain")
        assert all(not token.top for token in plain)


@pytest.mark.models
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings(_THEIRS)
class TestTransformersGeneration(GenerationContract):
    @classmethod
    def load(cls) -> Engine:
        pytest.importorskip("transformers")
        return load(real("transformers", "smollm2-135m", max_model_len=2048))


@pytest.mark.models
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings(_THEIRS)
class TestTransformersEmbedding(EmbeddingContract):
    @classmethod
    def load(cls) -> Engine:
        pytest.importorskip("sentence_transformers")
        return load(real("transformers", "minilm"))


@pytest.mark.models
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings(_THEIRS)
class TestLateInteraction(ScoringContract):
    """An embedding model that compares token by token."""

    @classmethod
    def load(cls) -> Engine:
        pytest.importorskip("sentence_transformers")
        return load(real("transformers", "minilm"))

    def test_the_text_that_answers_scores_most(self, engine: Engine) -> None:
        texts = ["The tax form is due in May.", "Rain is water that falls from clouds.", "Hello"]
        scores = self.score(engine, "Where does rain come from?", texts)
        assert scores.index(max(scores)) == 1
        assert all(-1.001 <= score <= 1.001 for score in scores)


@pytest.mark.models
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings(_THEIRS)
class TestCrossEncoder(ScoringContract):
    """A small one with random weights: what it says means nothing, but it is always the same."""

    @classmethod
    def load(cls) -> Engine:
        pytest.importorskip("sentence_transformers")
        import tempfile

        path = Path(tempfile.mkdtemp(prefix="adjoin-cross-encoder-"))
        make_cross_encoder(path)
        files = ModelStore(Settings.load().home).resolve(str(path))
        assert files.kind == "score"
        spec = LoadSpec(model="c", engine="transformers", kind="score", path=str(files.path))
        return load(spec)

    def test_scores_differ_by_text(self, engine: Engine) -> None:
        assert len(set(self.score(engine, "rain", ["rain falls", "tax form"]))) == 2


def make_cross_encoder(path: Path, labels: int = 1) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(0)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *["rain", "falls", "tax", "form", "a", "long", "text"],
    ]
    vocabulary = {word: at for at, word in enumerate(words)}
    tokenizer: Any = BertTokenizerFast(vocab=vocabulary, model_max_length=64)
    tokenizer.save_pretrained(path)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=labels,
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(path)
