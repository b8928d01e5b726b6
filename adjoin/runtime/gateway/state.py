"""The workflows that are deployed, in the service's database."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, Delete, delete, insert, select

from adjoin.runtime.database import Database
from adjoin.runtime.database.tables import deployments


class Saved(msgspec.Struct, frozen=True):
    """A deployed workflow as its text; ``created`` is in seconds since the epoch."""

    tenant: str
    name: str
    revision: int
    created: float
    text: str


class SavedWorkflows:
    """What is deployed, so that it is there after a restart."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Saved]:
        rows = self._database.read_now(select(deployments))
        return [Saved(**row._asdict()) for row in rows]

    def put(self, saved: Saved) -> None:
        """Raises :class:`StateError` when it cannot be written; then nothing has changed."""

        def replace(connection: Connection) -> None:
            connection.execute(_of(saved.tenant, saved.name))
            connection.execute(insert(deployments).values(msgspec.structs.asdict(saved)))

        self._database.write_now(replace)

    def delete(self, tenant: str, name: str) -> None:
        """As :meth:`put`."""
        self._database.write_now(_of(tenant, name))


def _of(tenant: str, name: str) -> Delete:
    return delete(deployments).where(deployments.c.tenant == tenant, deployments.c.name == name)
