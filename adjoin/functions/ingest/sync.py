"""What has to be done so that a collection holds what a folder holds."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class SyncPlan(msgspec.Struct, frozen=True):
    """Sources to embed for the first time, to embed again, and to remove; each sorted."""

    add: tuple[str, ...]
    change: tuple[str, ...]
    remove: tuple[str, ...]


def plan_sync(current: Mapping[str, str], found: Mapping[str, str]) -> SyncPlan:
    """Compare digests by source. Whatever is in ``current`` and not in ``found`` is removed, so
    give only the sources that belong to the folder (:func:`adjoin.functions.ingest.belongs`)."""
    return SyncPlan(
        add=tuple(sorted(found.keys() - current.keys())),
        change=tuple(
            sorted(
                source
                for source in found.keys() & current.keys()
                if found[source] != current[source]
            )
        ),
        remove=tuple(sorted(current.keys() - found.keys())),
    )
