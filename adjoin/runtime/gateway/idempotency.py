"""Which requests ask for a durable run, and which are the same request again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.requests import Request

from adjoin.errors import Conflict, InputError
from adjoin.runtime.gateway.tracing import trace_of

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True)
class Durability:
    """How a durable run was asked for.

    Attributes:
        key: of its tenant; None of an asynchronous run without one.
        fingerprint: sha256 of what was asked: the address and the body.
        trace: headers of W3C Trace Context.
        tokens: the budget of its own that the request names.
        plain: ``generate`` or ``embed`` when a model was asked, not a workflow.
    """

    key: str | None
    fingerprint: bytes
    trace: Mapping[str, str] = field(default_factory=dict)
    tokens: int | None = None
    plain: str = ""


async def durability(
    request: Request, *, later: bool = False, tokens: int | None = None, plain: str = ""
) -> Durability | None:
    """How a request asks for a durable run; None when it does not: neither with a key nor to be
    answered later.

    Raises:
        InputError: the key is none.
    """
    key = request.headers.get(HEADER)
    if key is not None:
        key = key.strip().strip('"')  # a string of RFC 8941, as the IETF's draft writes it
        if not _KEY.fullmatch(key):
            raise InputError(
                "an idempotency key has 1 to 255 printable characters without spaces",
                where=HEADER,
                hint="use a UUID",
            )
    if key is None and not later:
        return None
    asked = f"{request.url.path}?{request.url.query}\n".encode() + await request.body()
    return Durability(key, hashlib.sha256(asked).digest(), trace_of(request), tokens, plain)


def check_same(key: str, known: bytes, asked: bytes) -> None:
    """Raises :class:`Conflict` when the key was used for another request."""
    if known != asked:
        raise Conflict(
            "this key was used for another request",
            where=f"{HEADER}: {key[:40]}",
            hint="do not send this again: use a new key for a new request",
        )
