"""PyTorch models through Hugging Face libraries: embed, score, and generate on any machine."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from adjoin.functions.engines.base import LoadSpec

if TYPE_CHECKING:
    from adjoin.functions.engines.base import Engine

#: What the libraries import only when a model is loaded; the template does it for all replicas.
_MODULES = (
    "sentence_transformers",
    "transformers",
    "transformers.generation",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
)


def warm() -> None:
    for module in _MODULES:
        importlib.import_module(module)


def load(spec: LoadSpec) -> Engine:
    import torch

    torch.set_num_threads(spec.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if spec.kind == "embed":
        from adjoin.functions.engines.embedder import load_embedder

        return load_embedder(spec, device)
    if spec.kind == "score":
        from adjoin.functions.engines.scorer import load_scorer

        return load_scorer(spec, device)
    from adjoin.functions.engines.generator import load_generator

    return load_generator(spec, device)
