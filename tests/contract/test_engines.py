"""The contract over all engines. Those with real models run with ``-m models``."""

from __future__ import annotations

import pytest
from engine_suite import EmbeddingContract, GenerationContract

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


@pytest.mark.models
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings(_THEIRS)
class TestVllmGeneration(GenerationContract):
    @classmethod
    def load(cls) -> Engine:
        pytest.importorskip("vllm")
        return load(real("vllm", "smollm2-135m", max_model_len=2048))


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
