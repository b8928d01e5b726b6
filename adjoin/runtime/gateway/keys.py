"""API keys: opaque, shown once, kept as sha256."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, Select, delete, insert, select

from adjoin.errors import InputError, NotFound
from adjoin.runtime.database import Database, tables
from adjoin.settings import TENANT

#: What a key may be allowed to do. ``admin`` is all of it.
SCOPES = ("invoke", "deploy", "collections", "observe", "admin")
DEFAULT_TENANT = "default"

PREFIX = "adj_"
_BYTES = 32
_LONGEST_LABEL = 100


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key; the key itself is not.

    Attributes:
        created, expires: seconds since the epoch; ``expires`` is None for one that does not.
    """

    id: str
    tenant: str
    scopes: tuple[str, ...]
    label: str
    created: float
    expires: float | None = None

    def allows(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes


def check_tenant(name: str) -> str:
    """Return ``name`` when it may name a tenant; raises :class:`InputError` otherwise."""
    if not TENANT.fullmatch(name):
        raise InputError(
            f"{name[:60]!r} cannot name a tenant",
            hint="use lower-case letters, digits and '-', at most 31, beginning with no '-'",
        )
    return name


class KeyStore:
    """The keys in the service's database. Every look-up reads it: a key that another process
    revokes is void at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        tenant: str = DEFAULT_TENANT,
        scopes: Iterable[str] = ("invoke",),
        *,
        label: str = "",
        lifetime_s: float | None = None,
    ) -> tuple[Key, str]:
        """A new key, and its text, which is nowhere else.

        Raises:
            InputError: the tenant's name, a scope or the lifetime is not allowed.
        """
        now = time.time()
        if lifetime_s is not None and not 0 < lifetime_s <= 1e10:
            raise InputError("a key's lifetime must be more than 0 seconds")
        key = Key(
            id=secrets.token_hex(6),
            tenant=check_tenant(tenant),
            scopes=_checked_scopes(scopes),
            label=_checked_label(label),
            created=now,
            expires=None if lifetime_s is None else now + lifetime_s,
        )
        text = PREFIX + secrets.token_urlsafe(_BYTES)
        row = {**msgspec.structs.asdict(key), "scopes": " ".join(key.scopes)}
        self._database.write_now(insert(tables.keys).values(digest=_digest(text), **row))
        return key, text

    async def look_up(self, text: str) -> Key | None:
        """As :meth:`find`, for an event loop."""
        return _valid(await self._database.look_up(_by_text(text)))

    def find(self, text: str) -> Key | None:
        """The key of this text, unless there is none or it has expired.

        The look-up is by digest: how long it takes says nothing about the texts of keys.
        """
        return _valid(self._database.read_now(_by_text(text)))

    def all(self) -> list[Key]:
        """All keys, the oldest first."""
        rows = self._database.read_now(select(tables.keys).order_by(tables.keys.c.created))
        return [_key(row) for row in rows]

    def revoke(self, id: str) -> None:
        """Make a key void; raises :class:`NotFound`."""
        if not self._database.write_now(delete(tables.keys).where(tables.keys.c.id == id)):
            raise NotFound("there is no such key", where=id[:60], hint="adjoin keys list")


def _digest(text: str) -> bytes:
    # Keys have 256 random bits: there is nothing to guess, so no slow hash is needed.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _by_text(text: str) -> Select[Any]:
    return select(tables.keys).where(tables.keys.c.digest == _digest(text))


def _valid(rows: Sequence[Row[Any]]) -> Key | None:
    key = _key(rows[0]) if rows else None
    expired = key is not None and key.expires is not None and key.expires <= time.time()
    return None if expired else key


def _key(row: Row[Any]) -> Key:
    plain = {name: getattr(row, name) for name in Key.__struct_fields__}
    return msgspec.convert({**plain, "scopes": row.scopes.split()}, Key)


def _checked_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(scopes))
    wrong = [scope for scope in found if scope not in SCOPES]
    if wrong or not found:
        raise InputError(
            f"there is no scope {wrong[0][:60]!r}" if wrong else "a key needs a scope",
            hint=f"scopes are {', '.join(SCOPES)}",
        )
    return found


def _checked_label(label: str) -> str:
    if len(label) > _LONGEST_LABEL or not label.isprintable():
        raise InputError(f"a label is one line of at most {_LONGEST_LABEL} characters")
    return label
