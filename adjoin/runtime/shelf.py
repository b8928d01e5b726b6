"""The collections that one worker has open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from adjoin.errors import Conflict
from adjoin.types import Passage, Vector
from adjoin.vector_state import collections as stored
from adjoin.vector_state.collections import Collection, CollectionInfo

_T = TypeVar("_T")
#: How often a change is made again on what another process stored meanwhile.
_TRIES = 10


class Shelf:
    """Opens collections when they are asked for, and again when another process changed them.

    Args:
        executor: where FAISS and files are worked with.
        changed: told when the set of open collections changes.
    """

    def __init__(self, root: Path, executor: Executor, changed: Callable[[], None]) -> None:
        self._root = root
        self._executor = executor
        self._changed = changed
        self._open: dict[str, Collection] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """The open collections and their bytes on the disk."""
        return {name: self._open[name].info.bytes for name in sorted(self._open)}

    async def search(self, name: str, vector: Vector, k: int) -> list[Passage]:
        """The nearest passages in the newest version; of one that is open in one go."""
        held = self._open.get(name)
        if held is not None:
            found = await self._run(
                lambda: held.search(vector, k) if self._is_newest(held) else None
            )
            if found is not None:
                return found
        collection = await self.collection(name)
        return await self._run(lambda: collection.search(vector, k))

    async def collection(self, name: str) -> Collection:
        """The newest version of a collection.

        Raises:
            NotFound: there is none.
            StateError: it is damaged.
        """
        async with self._lock(name):
            held = self._open.get(name)
            if held is not None and await self._run(lambda: self._is_newest(held)):
                return held
            self._forget(name)
            return self._keep(await self._run(lambda: Collection.open(self._root, name)))

    async def ensure(self, name: str, embedding: str, digest: str) -> Collection:
        """Open a collection, or make it for this embedding model."""
        async with self._lock(name):
            if not await self._run(lambda: stored.exists(self._root, name)):
                await self._run(lambda: self._create(name, embedding, digest))
        return await self.collection(name)

    async def change(self, name: str, apply: Callable[[Collection], None]) -> CollectionInfo:
        """Apply a change and store the result; readers see the old version or the new one."""
        async with self._lock(name):
            self._forget(name)
            try:
                collection = await self._run(lambda: self._apply(name, apply))
            finally:
                self._forget(name)
            return self._keep(collection).info

    async def describe(self, name: str = "") -> list[CollectionInfo]:
        if name:
            return [await self._run(lambda: stored.read_manifest(self._root, name).info)]
        return await self._run(lambda: stored.list_collections(self._root))

    async def drop(self, name: str) -> None:
        async with self._lock(name):
            self._forget(name)
            await self._run(lambda: stored.remove(self._root, name))

    def _apply(self, name: str, apply: Callable[[Collection], None]) -> Collection:
        for left in reversed(range(_TRIES)):
            collection = Collection.open(self._root, name)
            apply(collection)
            try:
                collection.save()
            except Conflict:
                if left:
                    continue
                raise
            return collection
        raise Conflict(f"collection {name!r} is changed by too many at once", hint="try again")

    def _create(self, name: str, embedding: str, digest: str) -> None:
        with contextlib.suppress(Conflict):  # another process was first; opening it comes next
            Collection.create(self._root, name, embedding=embedding, embedding_digest=digest)

    def _is_newest(self, held: Collection) -> bool:
        return stored.read_manifest(self._root, held.name).version == held.info.version

    def _keep(self, collection: Collection) -> Collection:
        self._open[collection.name] = collection
        self._changed()
        return collection

    def _forget(self, name: str) -> None:
        self._open.pop(name, None)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
