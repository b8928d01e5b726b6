"""Collections: passages with their vectors, searched in memory, saved as atomic snapshots."""

from __future__ import annotations

from adjoin.vector_state.collections.collection import Collection
from adjoin.vector_state.collections.snapshot import (
    CollectionInfo,
    check_name,
    exists,
    list_collections,
    read_manifest,
    remove,
)

__all__ = [
    "Collection",
    "CollectionInfo",
    "check_name",
    "exists",
    "list_collections",
    "read_manifest",
    "remove",
]
