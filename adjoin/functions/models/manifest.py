"""What a model's files are, pinned by sha256, and whether they still are that."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from adjoin.errors import ModelError

#: Weights that are unpickled when they are loaded: code in disguise.
PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
#: Everything a model may consist of; other files are left where they are.
KEPT = frozenset({".safetensors", ".gguf", ".json", ".jinja", ".txt", ".model", ".tiktoken"})
_MAX_HEADER = 100_000_000
_MAX_FILES = 10_000


class PinnedFile(msgspec.Struct, frozen=True):
    """``size`` in bytes, ``mtime`` in nanoseconds: while both hold, the file is not read again."""

    sha256: str
    size: int
    mtime: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in the store under one key.

    Attributes:
        name: as it was first asked for.
        source: the canonical text of where it comes from.
        root: the directory of ``files``: absolute for a user's own, otherwise beside the manifest.
        kind: ``embed``, ``generate`` or ``score``.
        format: ``safetensors`` or ``gguf``.
        revision: the commit of a hub repository.
    """

    version: int = 1
    name: str
    source: str
    root: str
    kind: str
    format: str
    revision: str = ""
    files: Mapping[str, PinnedFile]

    @property
    def digest(self) -> str:
        """One sha256 over names and contents."""
        text = "".join(f"{name}\0{self.files[name].sha256}\n" for name in sorted(self.files))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files.values())


def describe(name: str, source: str, files: Path, *, root: str, revision: str = "") -> Manifest:
    """Pin the model in the directory ``files`` and say what it is.

    Raises:
        ModelError: it is damaged, refused, or not a model.
    """
    pinned = pin(files)
    gguf = [path for path in pinned if path.endswith(".gguf")]
    kind, form = "generate", "gguf"
    if any(path.endswith(".safetensors") for path in pinned):
        kind, form = _kind(files, where=source), "safetensors"
    elif len(gguf) > 1:
        raise ModelError(
            f"several GGUF files: {', '.join(gguf)}", where=source, hint="name one of them"
        )
    return Manifest(
        name=name, source=source, root=root, kind=kind, format=form, revision=revision, files=pinned
    )


def pin(root: Path) -> dict[str, PinnedFile]:
    """Check and hash all files of a model, by path relative to ``root``.

    Raises:
        ModelError: pickled weights without a safetensors beside them, a link that leads out of
            ``root``, a damaged weights file, or nothing to load.
    """
    paths = list(_walk(root))
    kept = [path for path in paths if path.suffix.lower() in KEPT]
    _refuse_pickles(root, paths)
    if not any(path.suffix in {".safetensors", ".gguf"} for path in kept):
        raise ModelError(
            "no weights found", where=str(root), hint="a model is safetensors files or one .gguf"
        )
    return {path.relative_to(root).as_posix(): pin_file(path) for path in sorted(kept)}


def pin_file(path: Path) -> PinnedFile:
    """Hash one file after a look at its header.

    Raises:
        ModelError: the header contradicts the file's size.
    """
    check_header(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        stat = os.fstat(file.fileno())
    return PinnedFile(sha256, stat.st_size, stat.st_mtime_ns)


def changed(root: Path, files: Mapping[str, PinnedFile]) -> str | None:
    """The first file that differs from its pin, or None. Reads only files whose size or time of
    change differ."""
    for name, pinned in files.items():
        path = root / name
        try:
            stat = path.stat()
        except OSError:
            return name
        if (stat.st_size, stat.st_mtime_ns) == (pinned.size, pinned.mtime):
            continue
        if stat.st_size != pinned.size:
            return name
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != pinned.sha256:
                return name
    return None


def check_pins(files: Mapping[str, PinnedFile], pins: Mapping[str, str], where: str) -> None:
    """Compare with sha256 known beforehand; raises :class:`ModelError` for a difference."""
    for name, sha256 in pins.items():
        found = files.get(name)
        if found is None or found.sha256 != sha256:
            state = "is missing" if found is None else f"has sha256 {found.sha256}"
            raise ModelError(
                f"{name} {state}, expected {sha256}",
                where=where,
                hint="the download is damaged or was replaced; fetch it again from a source you "
                "trust",
            )


def check_header(path: Path) -> None:
    """Refuse safetensors whose header and size disagree, and GGUF without its magic."""
    if path.suffix == ".safetensors":
        _check_safetensors(path)
    elif path.suffix == ".gguf":
        with path.open("rb") as file:
            head = file.read(8)
        if head[:4] != b"GGUF" or int.from_bytes(head[4:], "little") not in {2, 3}:
            raise ModelError(
                "not a GGUF file of version 2 or 3", where=str(path), hint="fetch the file again"
            )


def _check_safetensors(path: Path) -> None:
    # https://github.com/huggingface/safetensors#format
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= min(size - 8, _MAX_HEADER) else b""
    try:
        tensors = json.loads(header)
        ends = [tensor["data_offsets"][1] for key, tensor in tensors.items() if key[:2] != "__"]
        whole = 8 + length + max(ends, default=0) == size
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise ModelError(
            "the safetensors file is truncated or damaged",
            where=str(path),
            hint="fetch the file again",
        )


def _kind(root: Path, where: str) -> str:
    """``embed`` for a sentence-transformers directory, ``score`` for a cross-encoder (a classifier
    of sequences), ``generate`` for any other model.

    Raises:
        ModelError: the model wants code of its own, or has no config.json.
    """
    if (root / "modules.json").exists():
        for module in _read_json(root / "modules.json"):
            kind = str(module.get("type", "")) if isinstance(module, dict) else ""
            if not kind.startswith("sentence_transformers."):
                raise ModelError(
                    f"modules.json names the class {kind!r}, which is not of sentence-transformers",
                    where=where,
                    hint="models that bring their own code are not loaded",
                )
        # A cross-encoder saved by sentence-transformers 6 has modules, too.
        about = _read_object(root / "config_sentence_transformers.json")
        return "score" if about.get("model_type") == "CrossEncoder" else "embed"
    if not (root / "config.json").exists():
        raise ModelError(
            "there is no config.json", where=where, hint="name the directory that holds it"
        )
    names = _read_object(root / "config.json").get("architectures") or ()
    classifies = any(str(name).endswith("ForSequenceClassification") for name in names)
    return "score" if classifies else "generate"


def _walk(root: Path) -> Iterator[Path]:
    home = root.resolve()
    count = 0
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder) / name
            count += 1
            if count > _MAX_FILES:
                raise ModelError(
                    f"more than {_MAX_FILES} files",
                    where=str(root),
                    hint="name the directory of one model",
                )
            if path.suffix.lower() not in KEPT | PICKLED:
                continue
            if not path.resolve().is_relative_to(home):
                raise ModelError(
                    f"{path.relative_to(root)} is a link that leads out of the model's directory",
                    where=str(root),
                    hint="copy the model with its links followed: cp -rL",
                )
            yield path


def _refuse_pickles(root: Path, paths: list[Path]) -> None:
    safe = {path.parent for path in paths if path.suffix == ".safetensors"}
    for path in paths:
        if path.suffix.lower() in PICKLED and path.parent not in safe:
            raise ModelError(
                f"{path.relative_to(root)} holds pickled weights, which can run any code when they "
                "are loaded",
                where=str(root),
                hint="convert the model to safetensors: "
                "model.save_pretrained(directory) of transformers does it",
            )


def _read_object(path: Path) -> dict[str, Any]:
    """What a JSON file says; nothing when it is not there, or is read by its library only."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _read_json(path: Path) -> list[Any]:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, list):
        raise ModelError("not a JSON list", where=str(path), hint="fetch the file again")
    return data
