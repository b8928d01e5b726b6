"""A collection on the disk: one immutable directory a version, and a pointer to the newest.

    <root>/<name>/CURRENT                       version, and the sha256 of its manifest
    <root>/<name>/v00000007/manifest.json       what it holds, and the sha256 of each file
    <root>/<name>/v00000007/passages.arrow      id, text, source, metadata as JSON; in row order
    <root>/<name>/v00000007/vectors.faiss       IndexFlatIP of unit vectors, in the same order

Everything is on the disk before ``CURRENT`` is renamed into place: a crash leaves the old version
or the new one. Nothing is parsed before its checksum was compared.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from adjoin.errors import Conflict, InputError, NotFound, StateError
from adjoin.types import Passage, Scalar
from adjoin.vector_state.collections import disk

FORMAT = 1
_MAGIC = "adjoin-collection"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_CURRENT = "CURRENT"
_MANIFEST = "manifest.json"
_PASSAGES = "passages.arrow"
_VECTORS = "vectors.faiss"
_FAISS_MAGIC = b"IxFI"  # IndexFlatIP
_T = TypeVar("_T")


class CollectionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """``dimension`` is 0 while nothing was added; ``bytes`` is the size on the disk."""

    name: str
    embedding: str
    embedding_digest: str = ""
    dimension: int = 0
    passages: int = 0
    sources: int = 0
    version: int = 0
    bytes: int = 0


class _Current(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    magic: str
    version: int
    manifest: str


class _File(msgspec.Struct, frozen=True):
    sha256: str
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``sources`` maps each source to the digest of what was added from it."""

    magic: str = _MAGIC
    format: int = FORMAT
    name: str
    version: int
    embedding: str
    embedding_digest: str
    dimension: int
    passages: int
    sources: Mapping[str, str]
    files: Mapping[str, _File] = {}

    @property
    def info(self) -> CollectionInfo:
        return CollectionInfo(
            name=self.name,
            embedding=self.embedding,
            embedding_digest=self.embedding_digest,
            dimension=self.dimension,
            passages=self.passages,
            sources=len(self.sources),
            version=self.version,
            bytes=sum(file.size for file in self.files.values()),
        )


def check_name(name: str) -> str:
    """Return ``name`` when it may name a collection; raises :class:`InputError` otherwise."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a collection",
            hint="use letters, digits, '_', '.' and '-', at most 64, beginning with a letter or "
            "digit",
        )
    return name


def directory_of(root: Path, name: str) -> Path:
    """Where a collection lies; raises :class:`StateError` when that is a link to elsewhere."""
    path = root / check_name(name)
    if path.is_symlink():
        raise StateError(
            "the collection's directory is a link",
            where=str(path),
            hint="move the real directory here",
        )
    return path


def exists(root: Path, name: str) -> bool:
    return (directory_of(root, name) / _CURRENT).exists()


def list_collections(root: Path) -> list[CollectionInfo]:
    """What is stored below ``root``, by name, without loading any of it.

    Raises:
        StateError: a pointer or a manifest is damaged.
    """
    names = [path.parent.name for path in root.glob(f"*/{_CURRENT}")]
    return [read_manifest(root, name).info for name in sorted(names) if _NAME.fullmatch(name)]


def remove(root: Path, name: str) -> None:
    """Delete a collection; raises :class:`NotFound` when there is none."""
    path = directory_of(root, name)
    if not exists(root, name):
        raise _not_found(root, name)
    grave = root / f".deleted-{name}"
    if grave.exists():
        disk.remove_tree(grave)
    disk.replace(path, grave)
    disk.remove_tree(grave)


def read_manifest(root: Path, name: str) -> Manifest:
    """The newest version's manifest, checked.

    Raises:
        NotFound: there is no such collection.
        StateError: the pointer or the manifest is damaged.
    """
    path = directory_of(root, name)
    while True:
        try:
            text = (path / _CURRENT).read_bytes()
        except FileNotFoundError:
            raise _not_found(root, name) from None
        current = _decode(text, _Current, path / _CURRENT)
        if current.magic != _MAGIC:
            _damaged(path / _CURRENT, "it is not the pointer of a collection")
        file = path / _version(current.version) / _MANIFEST
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            if (path / _CURRENT).read_bytes() != text:
                continue  # a newer version took its place while we looked
            _damaged(file, "the file is missing")
        break
    if hashlib.sha256(data).hexdigest() != current.manifest:
        _damaged(file, "its checksum differs")
    manifest = _decode(data, Manifest, file)
    if manifest.format != FORMAT:
        raise StateError(
            f"the collection has format {manifest.format}, this version of adjoin reads {FORMAT}",
            where=str(file),
            hint="use the version of adjoin that wrote it, or add its documents again",
        )
    return manifest


def load(root: Path, name: str) -> tuple[Manifest, list[Passage], Any]:
    """The newest version: manifest, passages, and the FAISS index (None when nothing was added).

    Raises:
        NotFound: there is no such collection.
        StateError: a file is missing or damaged. Older versions are never used in its place.
    """
    while True:
        manifest = read_manifest(root, name)
        folder = directory_of(root, name) / _version(manifest.version)
        try:
            for file, expected in manifest.files.items():
                _check_file(folder / file, expected)
            passages = _read_passages(folder / _PASSAGES) if manifest.dimension else []
            index = _read_index(folder / _VECTORS, manifest) if manifest.dimension else None
        except FileNotFoundError as error:
            if read_manifest(root, name).version != manifest.version:
                continue  # a newer version took its place while we read
            _damaged(Path(str(error.filename)), "the file is missing")
        if len(passages) != manifest.passages:
            _damaged(folder / _PASSAGES, f"it does not hold {manifest.passages} passages")
        return manifest, passages, index


def save(root: Path, manifest: Manifest, passages: Sequence[Passage], index: Any) -> Manifest:
    """Store ``manifest.version`` as the newest and remove what it replaces.

    Raises:
        Conflict: another process has stored a version meanwhile.
        StateError: the disk is full or cannot be written; the old version stays.
    """
    path = directory_of(root, manifest.name)
    with _as_state_error(path):
        path.mkdir(parents=True, exist_ok=True)
        with disk.locked(path / "LOCK"):
            _check_unchanged(root, manifest)
            _sweep(path, keep=manifest.version - 1)
            folder = path / _version(manifest.version)
            disk.make_directory(folder)
            written = _write_files(folder, manifest, passages, index)
            data = msgspec.json.format(msgspec.json.encode(written))
            disk.write(folder / _MANIFEST, lambda file: _write_bytes(file, data))
            disk.sync(folder)
            disk.sync(path)
            current = _Current(_MAGIC, manifest.version, hashlib.sha256(data).hexdigest())
            fresh = path / f"{_CURRENT}.new"
            disk.write(fresh, lambda file: _write_bytes(file, msgspec.json.encode(current)))
            disk.replace(fresh, path / _CURRENT)
            disk.sync(root)
            _sweep(path, keep=manifest.version)
    return written


def _write_files(
    folder: Path, manifest: Manifest, passages: Sequence[Passage], index: Any
) -> Manifest:
    files = {}
    if index is not None:
        import faiss

        disk.write(folder / _PASSAGES, lambda file: _write_passages(file, passages))
        disk.write(folder / _VECTORS, lambda file: faiss.write_index(index, str(file)))
        files = {name: _describe(folder / name) for name in (_PASSAGES, _VECTORS)}
    return msgspec.structs.replace(manifest, files=files)


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _write_passages(path: Path, passages: Sequence[Passage]) -> None:
    import pyarrow as pa

    columns = {
        "id": [passage.id for passage in passages],
        "text": [passage.text for passage in passages],
        "source": [passage.source for passage in passages],
        "metadata": [msgspec.json.encode(passage.metadata).decode() for passage in passages],
    }
    schema = pa.schema([(name, pa.large_string()) for name in columns])
    table = pa.table(columns, schema=schema)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table)


def _read_passages(path: Path) -> list[Passage]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            table = reader.read_all()
            table.validate()
            columns = [table[name].to_pylist() for name in ("id", "text", "source", "metadata")]
        decode = msgspec.json.Decoder(dict[str, Scalar]).decode
        return [
            Passage(id=id_, text=text, source=source, metadata=decode(metadata))
            for id_, text, source, metadata in zip(*columns, strict=True)
        ]
    except (pa.ArrowInvalid, KeyError, msgspec.MsgspecError) as error:
        _damaged(path, str(error))


def _read_index(path: Path, manifest: Manifest) -> Any:
    import faiss

    with path.open("rb") as file:
        if file.read(4) != _FAISS_MAGIC:
            _damaged(path, "it is not a flat inner-product index")
    index = faiss.read_index(str(path))
    if (index.d, index.ntotal) != (manifest.dimension, manifest.passages):
        _damaged(path, f"it does not hold {manifest.passages} vectors of {manifest.dimension}")
    return index


def _check_file(path: Path, expected: _File) -> None:
    found = _describe(path)
    if found.size != expected.size:
        _damaged(path, f"it has {found.size} bytes instead of {expected.size}")
    if found.sha256 != expected.sha256:
        _damaged(path, "its checksum differs")


def _describe(path: Path) -> _File:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return _File(sha256, file.tell())


def _check_unchanged(root: Path, manifest: Manifest) -> None:
    newest = read_manifest(root, manifest.name).version if exists(root, manifest.name) else 0
    if newest != manifest.version - 1:
        raise Conflict(
            f"version {newest} was stored meanwhile, by another process",
            where=f"collection {manifest.name!r}",
            hint="open the collection again and repeat the change",
        )


def _sweep(path: Path, *, keep: int) -> None:
    """Remove all versions but one: the replaced ones and what crashes left."""
    for folder in path.glob("v*"):
        if folder.name != _version(keep):
            disk.remove_tree(folder)


def _version(number: int) -> str:
    return f"v{number:08d}"


def _decode(data: bytes, kind: type[_T], path: Path) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _damaged(path, str(error))


def _damaged(path: Path, why: str) -> NoReturn:
    raise StateError(
        f"the stored collection is damaged: {why}",
        where=str(path),
        hint="restore the file from a copy, or delete the collection and add its documents again",
    )


def _not_found(root: Path, name: str) -> NotFound:
    known = ", ".join(sorted(path.parent.name for path in root.glob(f"[!.]*/{_CURRENT}")))
    return NotFound(
        f"no collection {name!r}",
        hint=f"there are: {known}" if known else "add documents to it first",
    )


@contextmanager
def _as_state_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = "the disk is full" if full else error.strerror or str(error)
        raise StateError(
            f"the collection could not be saved: {reason}",
            where=str(path),
            hint="its old version is untouched; free some space" if full else "",
        ) from error
    except RuntimeError as error:  # faiss
        raise StateError(f"the vectors could not be saved: {error}", where=str(path)) from error
