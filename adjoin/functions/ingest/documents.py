"""What parsing takes and gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from adjoin.settings import Settings


class Section(msgspec.Struct, frozen=True):
    """A run of text under one heading or on one page.

    ``heading`` is the path of headings above it, joined by ``" > "``; ``page`` counts from 1 and is
    0 where there are no pages.
    """

    text: str
    heading: str = ""
    page: int = 0


class Document(msgspec.Struct, frozen=True):
    """``source`` is the name it is known by; ``digest`` that of its content and chunking."""

    source: str
    digest: str
    sections: tuple[Section, ...]


class ParseFailure(msgspec.Struct, frozen=True):
    """A file that gave no document, and why; the others go on.

    ``skipped`` says that there is nothing to be had from it (it is empty, or has no text), as
    opposed to a file that is damaged, locked or too large.
    """

    source: str
    reason: str
    skipped: bool = False

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on one document: of the file in bytes, of parsing in seconds and MiB, of the text in
    bytes. ``max_files`` bounds a folder."""

    max_file_bytes: int = 64_000_000
    timeout_s: float = 60.0
    memory_mb: int = 2048
    max_text_bytes: int = 32_000_000
    max_files: int = 100_000

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            max_file_bytes=settings.max_file_bytes,
            timeout_s=settings.parse_timeout_s,
            memory_mb=settings.parse_memory_mb,
        )
