"""Sections to passages that fit an embedding model."""

from __future__ import annotations

import hashlib
import re
from typing import cast

import msgspec

from adjoin.errors import InputError
from adjoin.functions.ingest.documents import Document
from adjoin.types import Passage, Scalar

# Latin words by sevens, digits by threes, everything else (punctuation, CJK, Cyrillic, …) one by
# one: counted so, 200 pieces of English prose, of package descriptions and of other scripts are
# 190 to 240 tokens of MiniLM's vocabulary, which takes 256 at once.
_PIECE = re.compile(r"[A-Za-z]{1,7}|\d{1,3}|[^\sA-Za-z\d]")
_MAX_SIZE = 100_000


class Chunking(msgspec.Struct, frozen=True):
    """Size of a passage and overlap of neighbours, in pieces: a piece is about one token.

    ``str()`` of it is part of a document's digest.
    """

    size: int = 200
    overlap: int = 0

    def __str__(self) -> str:
        return f"{self.size}/{self.overlap}"

    def check(self) -> Chunking:
        """Itself; raises :class:`InputError` when the numbers make no sense."""
        if not 1 <= self.size <= _MAX_SIZE:
            raise InputError(f"size is {self.size}", hint=f"choose from 1 to {_MAX_SIZE}")
        if not 0 <= self.overlap < self.size:
            raise InputError(
                f"overlap is {self.overlap}", hint=f"choose from 0 to size - 1, {self.size - 1}"
            )
        return self


def count_pieces(text: str) -> int:
    """The length of a text in pieces."""
    return sum(1 for _ in _PIECE.finditer(text))


def split(text: str, chunking: Chunking) -> list[str]:
    """Cut at the widest breaks that give parts of at most ``chunking.size`` pieces.

    Raises:
        InputError: the chunking makes no sense.
    """
    from semchunk.semchunk import chunk

    chunking.check()
    # A bounded memory for counts, because the texts are its keys.
    parts = chunk(
        text, chunking.size, count_pieces, overlap=chunking.overlap or None, cache_maxsize=1024
    )
    return [part for part in cast(list[str], parts) if count_pieces(part)]


def passages_of(document: Document, chunking: Chunking | None = None) -> list[Passage]:
    """The passages of a document, in order.

    Ids depend on source, position and text alone, so that parsing again gives the same ids.
    Metadata hold ``page`` and ``heading`` where there are some.
    """
    passages: list[Passage] = []
    for section in document.sections:
        metadata: dict[str, Scalar] = {}
        if section.page:
            metadata["page"] = section.page
        if section.heading:
            metadata["heading"] = section.heading
        for text in split(section.text, chunking or Chunking()):
            passages.append(
                Passage(
                    id=_id(document.source, len(passages), text),
                    text=text,
                    source=document.source,
                    metadata=metadata,
                )
            )
    return passages


def embedding_text(passage: Passage) -> str:
    """What to embed for a passage: its headings say what it is about, its text may not."""
    heading = passage.metadata.get("heading")
    return f"{heading}\n{passage.text}" if heading else passage.text


def _id(source: str, position: int, text: str) -> str:
    digest = hashlib.blake2b(f"{source}\0{position}\0{text}".encode(), digest_size=16)
    return digest.hexdigest()
