"""The two models that need no hub, as the store gives them to the libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_library import gguf

from adjoin.errors import ModelError
from adjoin.functions.models import ModelStore
from adjoin.settings import Settings

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def store() -> ModelStore:
    return ModelStore(Settings.load().home)


def test_smollm2_answers(store: ModelStore) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    files = store.resolve("smollm2-135m")
    assert files.kind == "generate"
    tokenizer = AutoTokenizer.from_pretrained(files.path, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(files.path, local_files_only=True)
    assert model.dtype == torch.float32
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(output[0][prompt["input_ids"].shape[1] :])


def test_minilm_embeds(store: ModelStore) -> None:
    from sentence_transformers import SentenceTransformer

    files = store.resolve("minilm")
    assert files.kind == "embed"
    model = SentenceTransformer(str(files.path), device="cpu", local_files_only=True)
    cat, kitten, tax = model.encode(["a cat", "a kitten", "income tax"], normalize_embeddings=True)
    assert cat.shape == (384,)
    assert np.dot(cat, kitten) > 0.7 > 0.3 > np.dot(cat, tax)


def test_a_gguf_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(gguf(b"\xff" * 64))
    with pytest.raises(ModelError, match="could not be converted"):
        ModelStore(tmp_path / "home").resolve(str(tmp_path / "bad.gguf"))
