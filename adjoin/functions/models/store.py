"""The model store: names to pinned local files.

    <home>/models/<key>/manifest.json      source, kind, and the sha256 of every file
    <home>/models/<key>/files/             the model, unless it is a user's own directory
    <home>/models/<key>.lock               held while the entry is made or repaired

An entry is made under a temporary name and renamed, so that it is whole or absent; processes that
want the same model at once wait for the first one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from adjoin.errors import ModelError
from adjoin.functions.models.catalog import CATALOG
from adjoin.functions.models.convert import convert
from adjoin.functions.models.fetch import OnProgress, fetch_hub, fetch_wheel
from adjoin.functions.models.manifest import (
    PICKLED,
    Manifest,
    changed,
    check_pins,
    describe,
    pin_file,
)
from adjoin.functions.models.source import HubSource, PathSource, WheelSource, parse_source
from adjoin.types import Progress

if TYPE_CHECKING:
    from adjoin.dag import ModelSpec

_MANIFEST = "manifest.json"
_FILES = "files"
#: Fills a working directory and says what is in it.
_Make: TypeAlias = Callable[[Path], Manifest]


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A model on this machine.

    Attributes:
        name: as it was asked for.
        path: a directory that transformers and vLLM load, or a GGUF file.
        digest: one sha256 over the names and contents of the files.
        kind: ``embed``, ``generate`` or ``score``.
        format: ``safetensors`` or ``gguf``.
        bytes: size of the files.
    """

    name: str
    path: Path
    digest: str
    kind: str
    format: str
    bytes: int


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the listing; ``files`` is None while the model has not been fetched."""

    name: str
    source: str
    kind: str
    about: str = ""
    files: ModelFiles | None = None


class ModelStore:
    """Resolves models to files below ``home``; cheap to make, safe to use from many processes."""

    def __init__(self, home: Path) -> None:
        self._root = home.absolute() / "models"
        self._known: dict[str, Manifest] = {}

    def resolve(
        self,
        spec: ModelSpec | str,
        *,
        for_engine: str | None = None,
        progress: OnProgress | None = None,
    ) -> ModelFiles:
        """Local files of a model, fetched, checked and converted where that is still to do. Blocks.

        ``for_engine="llamacpp"`` leaves GGUF as it is; everything else gets safetensors.

        Raises:
            ModelError: the name means nothing, the model cannot be had, is damaged, or is refused.
        """
        name = spec if isinstance(spec, str) else spec.source
        report = progress or _silent
        try:
            key, manifest = self._original(name, report)
            if manifest.format == "gguf" and for_engine != "llamacpp":
                key, manifest = self._converted(key, manifest, report)
        except OSError as error:
            raise _from_os(name, error) from error
        return self._files(name, key, manifest)

    def list(self) -> list[ModelInfo]:
        """The catalog and everything resolved so far, by name."""
        found = {
            name: ModelInfo(name=name, source=entry.source, kind=entry.kind, about=entry.about)
            for name, entry in CATALOG.items()
        }
        for key, manifest in self._manifests():
            name = manifest.name
            known = found.get(name)
            if known and known.files and known.files.format == "safetensors":
                continue  # a GGUF and what it was converted to: show what engines load
            found[name] = ModelInfo(
                name=name,
                source=manifest.source,
                kind=manifest.kind,
                about=known.about if known else "",
                files=self._files(name, key, manifest),
            )
        return [found[name] for name in sorted(found)]

    def _original(self, name: str, report: OnProgress) -> tuple[str, Manifest]:
        """The model in the format it comes in."""
        source = parse_source(name)
        key = _key(str(source))

        def make(work: Path) -> Manifest:
            if isinstance(source, PathSource):
                return _local(name, Path(source.path))
            files = work / _FILES
            files.mkdir()
            revision = ""
            if isinstance(source, HubSource):
                before = self._read(key)
                wanted = HubSource(source.repo, before.revision) if before else source
                revision = fetch_hub(wanted, files, report)
            else:
                fetch_wheel(source, files, work, report)
            report(Progress(label=f"checking {name}", done=0))
            manifest = describe(name, str(source), files, root=_FILES, revision=revision)
            check_pins(manifest.files, _pins(source), where=name)
            return manifest

        return key, self._entry(key, make, own=isinstance(source, PathSource))

    def _converted(self, key: str, original: Manifest, report: OnProgress) -> tuple[str, Manifest]:
        """The safetensors of a GGUF; keyed by its content, so one file is converted once."""
        gguf = _weights(self._directory(key, original), original)
        sha256 = original.files[gguf.name].sha256

        def make(work: Path) -> Manifest:
            report(Progress(label=f"converting {original.name} to safetensors", done=0))
            convert(gguf, work / _FILES)
            return describe(original.name, original.source, work / _FILES, root=_FILES)

        return f"gguf-{sha256[:32]}", self._entry(f"gguf-{sha256[:32]}", make)

    def _entry(self, key: str, make: _Make, *, own: bool = False) -> Manifest:
        """A whole entry: the one on disk, or a new one when it is absent or damaged.

        ``own`` says that the files are the user's, who may change them.
        """
        known = self._known.get(key)
        if known is not None and not own:
            return known
        manifest = self._checked(key)
        if manifest is None:
            self._root.mkdir(parents=True, exist_ok=True)
            with _locked(self._root / f"{key}.lock"):
                manifest = self._checked(key) or self._publish(key, make)
        self._known[key] = manifest
        return manifest

    def _publish(self, key: str, make: _Make) -> Manifest:
        for stale in self._root.glob(f".{key}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=self._root))
        try:
            manifest = make(work)
            for path in work.iterdir():
                if path.name != _FILES:
                    path.unlink()
            _write_synced(work, manifest)
            entry = self._root / key
            if entry.exists():
                entry.rename(work.with_name(f"{work.name}-old"))
            work.rename(entry)
            _sync(self._root)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(work.with_name(f"{work.name}-old"), ignore_errors=True)
        return manifest

    def _checked(self, key: str) -> Manifest | None:
        manifest = self._read(key)
        if manifest is None or changed(self._directory(key, manifest), manifest.files):
            return None
        return manifest

    def _read(self, key: str) -> Manifest | None:
        try:
            data = (self._root / key / _MANIFEST).read_bytes()
            return msgspec.json.decode(data, type=Manifest)
        except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
            return None

    def _directory(self, key: str, manifest: Manifest) -> Path:
        return self._root / key / manifest.root

    def _files(self, name: str, key: str, manifest: Manifest) -> ModelFiles:
        directory = self._directory(key, manifest)
        return ModelFiles(
            name=name,
            path=_weights(directory, manifest) if manifest.format == "gguf" else directory,
            digest=manifest.digest,
            kind=manifest.kind,
            format=manifest.format,
            bytes=manifest.bytes,
        )

    def _manifests(self) -> Iterator[tuple[str, Manifest]]:
        for path in sorted(self._root.glob(f"[!.]*/{_MANIFEST}")):
            manifest = self._read(path.parent.name)
            if manifest is not None:
                yield path.parent.name, manifest


def _local(name: str, path: Path) -> Manifest:
    """Pin a user's own directory or GGUF file where it is."""
    if path.is_dir():
        return describe(name, str(path), path, root=str(path))
    if not path.exists():
        raise ModelError("no such file or directory", where=str(path), hint="check the path")
    if path.suffix.lower() in PICKLED:
        raise ModelError(
            "pickled weights can run any code when they are loaded, so they are refused",
            where=str(path),
            hint="convert the model to safetensors and name its directory",
        )
    if path.suffix != ".gguf":
        raise ModelError(
            "not a model: neither a directory nor a .gguf file",
            where=str(path),
            hint="name the directory that holds config.json and the safetensors",
        )
    files = {path.name: pin_file(path)}
    return Manifest(
        name=name,
        source=str(path),
        root=str(path.parent),
        kind="generate",
        format="gguf",
        files=files,
    )


def _weights(directory: Path, manifest: Manifest) -> Path:
    """The GGUF file of an original."""
    return directory / next(name for name in manifest.files if name.endswith(".gguf"))


def _pins(source: HubSource | WheelSource) -> Mapping[str, str]:
    text = str(source)
    return next((entry.pins for entry in CATALOG.values() if entry.source == text), {})


def _key(source: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-")[-40:].strip("-")
    return f"{slug}-{hashlib.sha256(source.encode()).hexdigest()[:16]}"


def _silent(progress: Progress) -> None:
    """Where no one looks."""


def _from_os(name: str, error: OSError) -> ModelError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ModelError(
            "the disk is full",
            where=name,
            hint="free some space or set ADJOIN_HOME to a larger disk",
        )
    file = f": {error.filename}" if error.filename else ""
    return ModelError(f"its files cannot be used: {error.strerror or error}{file}", where=name)


def _write_synced(work: Path, manifest: Manifest) -> None:
    with (work / _MANIFEST).open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest)))
        file.flush()
        os.fsync(file.fileno())
    for folder, _, names in os.walk(work):
        for name in names:
            _sync(Path(folder) / name)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold ``path`` against other processes and threads; the system frees it when we die."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
