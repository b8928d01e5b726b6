"""The page at ``/``: fixed files, the same for everyone, without a build step.

They hold nothing of anyone; what the page shows it asks the API for, with the reader's own key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files

import msgspec

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

#: The page runs its own files and talks to its own service, nothing else; no page frames it; and
#: the browser refuses every way by which a text could become markup.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob:",  # a workflow's picture, fetched with the key
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)


class File(msgspec.Struct, frozen=True):
    """A file as it is answered; ``etag`` changes with its content."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> File:
        return cls(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _read() -> dict[str, File]:
    found = {}
    for entry in files(__name__).iterdir():
        if media_type := _TYPES.get(entry.name.rpartition(".")[2]):
            path = "/" if entry.name == "index.html" else f"/page/{entry.name}"
            found[path] = File.of(entry.read_bytes(), media_type)
    return found


#: By the path at which each is served.
FILES: Mapping[str, File] = _read()
