"""Models and wheels small enough to be made in a test."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path


def safetensors(marker: str = "") -> bytes:
    """A whole safetensors file with one tensor of four bytes."""
    header = json.dumps(
        {"__metadata__": {"m": marker}, "t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0\0\0"


def gguf(marker: bytes = b"") -> bytes:
    return b"GGUF" + (3).to_bytes(4, "little") + marker


def model(root: Path, *, kind: str = "generate", marker: str = "") -> Path:
    """A directory that passes for a model."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text("{}")
    (root / "model.safetensors").write_bytes(safetensors(marker))
    if kind == "embed":
        modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
        (root / "modules.json").write_text(json.dumps(modules))
    return root


def wheel(folder: Path, files: Mapping[str, bytes], *, name: str = "tiny_model") -> Path:
    """A wheel of version 1.0 that pip accepts."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path
