"""One collection in memory: passages and unit vectors, searched exactly.

FAISS's flat index finds candidates; they are then scored again in float64 and equal scores are
ordered by id, so that a search gives the same answer however the collection came about.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from adjoin.errors import Conflict, InputError
from adjoin.types import Passage, Vector
from adjoin.vector_state.collections import snapshot
from adjoin.vector_state.collections.lock import ReadWriteLock
from adjoin.vector_state.collections.snapshot import CollectionInfo, Manifest

#: Of a score: what float32 vectors carry. Scores that are equal by arithmetic are equal here too.
_DECIMALS = 6
#: More than float32 inner products of unit vectors can be off.
_MARGIN = 1e-5
_EXTRA = 16


class Collection:
    """Passages with vectors. Safe for one writer and many readers; changes last from ``save``.

    Open it in one process; ``threads`` bounds what one search takes of the CPU.
    """

    def __init__(
        self, root: Path, manifest: Manifest, passages: list[Passage], index: Any, threads: int
    ) -> None:
        self._root = root
        self._manifest = manifest
        self._sources = dict(manifest.sources)
        self._passages = passages
        self._index = index
        self._rows = {passage.id: row for row, passage in enumerate(passages)}
        self._threads = threads
        self._access = ReadWriteLock()
        self._writer = threading.Lock()

    @classmethod
    def create(
        cls, root: Path, name: str, *, embedding: str, embedding_digest: str = "", threads: int = 1
    ) -> Collection:
        """Make an empty collection and store it.

        Raises:
            Conflict: it exists.
            InputError: the name is not allowed.
            StateError: it cannot be stored.
        """
        if snapshot.exists(root, name):
            raise Conflict(f"collection {name!r} exists", hint="open it, or choose another name")
        manifest = Manifest(
            name=name,
            version=0,
            embedding=embedding,
            embedding_digest=embedding_digest,
            dimension=0,
            passages=0,
            sources={},
        )
        collection = cls(root, manifest, [], None, threads)
        collection.save()
        return collection

    @classmethod
    def open(cls, root: Path, name: str, *, threads: int = 1) -> Collection:
        """Load the newest version.

        Raises:
            NotFound: there is none.
            StateError: it is damaged.
        """
        return cls(root, *snapshot.load(root, name), threads)

    @property
    def name(self) -> str:
        return self._manifest.name

    @property
    def embedding(self) -> str:
        """The name of the model that made the vectors."""
        return self._manifest.embedding

    @property
    def info(self) -> CollectionInfo:
        """Counts as they are in memory; version and bytes as they are on the disk."""
        with self._access.read():
            return msgspec.structs.replace(
                self._manifest.info,
                dimension=self._dimension,
                passages=len(self._passages),
                sources=len(self._sources),
            )

    def __len__(self) -> int:
        with self._access.read():
            return len(self._passages)

    def sources(self) -> dict[str, str]:
        """The digest of what was last added from each source."""
        with self._access.read():
            return dict(self._sources)

    def get(self, id: str) -> Passage | None:
        with self._access.read():
            row = self._rows.get(id)
            return None if row is None else self._passages[row]

    def upsert(
        self,
        passages: Sequence[Passage],
        vectors: Vector,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        """Add passages, replacing those with the same ids, and note the digests of their sources.

        ``vectors`` has shape ``[len(passages), d]``; its rows are scaled to unit length.

        Raises:
            InputError: shapes disagree, or a vector is zero or not finite.
        """
        units = self._units(passages, vectors)
        newest = {passage.id: row for row, passage in enumerate(passages)}
        keep = sorted(newest.values())
        with self._writer, self._access.write():
            self._drop({self._rows[id] for id in newest if id in self._rows})
            if keep:
                self._append([passages[row] for row in keep], units[keep])
            self._sources.update(sources or {})

    def delete(self, ids: Iterable[str]) -> int:
        """Remove passages; returns how many there were."""
        with self._writer, self._access.write():
            return self._drop({self._rows[id] for id in ids if id in self._rows})

    def delete_sources(self, sources: Iterable[str]) -> int:
        """Remove everything that came from ``sources``; returns how many passages there were."""
        gone = set(sources)
        with self._writer, self._access.write():
            for source in gone:
                self._sources.pop(source, None)
            return self._drop(
                {row for row, passage in enumerate(self._passages) if passage.source in gone}
            )

    def search(self, vector: Vector, k: int) -> list[Passage]:
        """The ``k`` passages most similar to ``vector`` (``[d]``), or all when there are fewer.

        Scores are cosine similarities, best first; equal ones are ordered by id.

        Raises:
            InputError: ``k`` is less than 1, or the vector has another dimension, is zero or is
                not finite.
        """
        if k < 1:
            raise InputError(f"k is {k}", where=self._where, hint="ask for at least one passage")
        with self._access.read():
            query = self._query(vector)
            if not self._passages:
                return []
            rows = self._candidates(query, min(k, len(self._passages)))
            scores = self._exact(rows, query)
            ids = [self._passages[row].id for row in rows]
            best = sorted(zip((-scores).tolist(), ids, rows, strict=True))[:k]
            return [
                msgspec.structs.replace(self._passages[row], score=-negative)
                for negative, _, row in best
            ]

    def save(self) -> int:
        """Store everything as a new version, atomically; returns its number.

        Raises:
            Conflict: another process stored a version since this collection was opened.
            StateError: the disk is full or cannot be written; the old version stays.
        """
        with self._writer:
            manifest = msgspec.structs.replace(
                self._manifest,
                version=self._manifest.version + 1,
                dimension=self._dimension,
                passages=len(self._passages),
                sources=dict(self._sources),
            )
            self._manifest = snapshot.save(self._root, manifest, self._passages, self._index)
            return self._manifest.version

    @property
    def _dimension(self) -> int:
        return int(self._index.d) if self._index is not None else 0

    @property
    def _where(self) -> str:
        return f"collection {self.name!r}"

    def _units(self, passages: Sequence[Passage], vectors: Vector) -> Vector:
        array = np.asarray(vectors, dtype=np.float32)
        if array.ndim != 2 or len(array) != len(passages):
            raise InputError(
                f"{len(passages)} passages with vectors of shape {list(array.shape)}",
                where=self._where,
                hint=f"give vectors of shape [{len(passages)}, d]",
            )
        if self._dimension and len(array) and array.shape[1] != self._dimension:
            raise self._wrong_dimension(array.shape[1])
        return self._normalised(array)

    def _query(self, vector: Vector) -> Vector:
        array = np.asarray(vector, dtype=np.float32)
        if array.ndim != 1:
            raise InputError(
                f"a search takes one vector of shape [d], this one has {list(array.shape)}",
                where=self._where,
                hint="embed one text, not a list",
            )
        if self._dimension and len(array) != self._dimension:
            raise self._wrong_dimension(len(array))
        unit: Vector = self._normalised(array[None])[0]
        return unit

    def _normalised(self, array: Vector) -> Vector:
        wide = array.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        if array.shape[1] == 0 or not np.all(np.isfinite(lengths)) or np.any(lengths == 0):
            raise InputError(
                "a vector is empty, zero or not finite",
                where=self._where,
                hint="check what made the vectors",
            )
        return np.ascontiguousarray(wide / lengths, dtype=np.float32)

    def _wrong_dimension(self, given: int) -> InputError:
        return InputError(
            f"a vector of {given} dimensions where the collection has {self._dimension}",
            where=self._where,
            hint=f"embed with the collection's own model, {self.embedding!r}",
        )

    def _append(self, passages: list[Passage], units: Vector) -> None:
        import faiss

        if self._index is None:
            self._index = faiss.IndexFlatIP(units.shape[1])
        faiss.omp_set_num_threads(self._threads)
        self._index.add(units)
        start = len(self._passages)
        self._passages.extend(passages)
        self._rows.update((passage.id, start + at) for at, passage in enumerate(passages))

    def _drop(self, rows: set[int]) -> int:
        """Remove rows from index and passages alike; the order of the others stays."""
        if not rows:
            return 0
        self._index.remove_ids(np.fromiter(rows, dtype=np.int64))
        self._passages = [passage for row, passage in enumerate(self._passages) if row not in rows]
        self._rows = {passage.id: row for row, passage in enumerate(self._passages)}
        return len(rows)

    def _candidates(self, query: Vector, k: int) -> list[int]:
        """Rows that hold the ``k`` best and everything that may tie with the last of them."""
        import faiss

        # The setting is one of the calling thread's, and threads come and go.
        faiss.omp_set_num_threads(self._threads)
        total = len(self._passages)
        fetch = min(total, k + _EXTRA)
        while True:
            scores, rows = self._index.search(query[None], fetch)
            if fetch == total or scores[0][-1] < scores[0][k - 1] - _MARGIN:
                return [int(row) for row in rows[0]]
            fetch = min(total, fetch * 4)

    def _exact(self, rows: list[int], query: Vector) -> npt.NDArray[np.float64]:
        vectors = self._index.reconstruct_batch(np.asarray(rows, dtype=np.int64))
        # Not a matrix product: that may add up equal rows in different orders.
        products = np.asarray(vectors, dtype=np.float64) * query.astype(np.float64)
        scores: npt.NDArray[np.float64] = np.clip(np.round(products.sum(axis=1), _DECIMALS), -1, 1)
        return scores
