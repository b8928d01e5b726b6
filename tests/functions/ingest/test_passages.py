"""Cutting text into passages."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adjoin.errors import InputError
from adjoin.functions.ingest import Chunking, Document, Section, embedding_text, passages_of
from adjoin.functions.ingest.passages import count_pieces, split
from adjoin.types import Passage


@settings(deadline=None)
@given(text=st.text(max_size=400), size=st.integers(1, 40))
def test_nothing_but_blanks_is_lost_and_nothing_is_too_long(text: str, size: int) -> None:
    parts = split(text, Chunking(size))
    assert all(0 < count_pieces(part) <= size for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_cuts_between_paragraphs_first() -> None:
    text = "one two three.\n\nfour five six.\n\nseven eight nine."
    assert split(text, Chunking(5)) == ["one two three.", "four five six.", "seven eight nine."]


def test_text_without_spaces_is_cut_too() -> None:
    assert [len(part) for part in split("智" * 25, Chunking(10))] == [10, 10, 5]
    assert max(count_pieces(part) for part in split("a" * 10_000, Chunking(200))) <= 200


def test_overlap() -> None:
    first, second, *_ = split(" ".join("abcdefghijkl"), Chunking(6, 3))
    assert set(first.split()) & set(second.split())


@pytest.mark.parametrize(
    ("chunking", "message"),
    [
        (Chunking(0), "size is 0"),
        (Chunking(10**9), "size is"),
        (Chunking(5, 5), "overlap is 5"),
        (Chunking(5, -1), "overlap is -1"),
    ],
)
def test_bad_numbers(chunking: Chunking, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split("text", chunking)


def document(source: str = "a.md") -> Document:
    sections = (Section("same", "Top", 0), Section("same", "", 2))
    return Document(source, "digest", sections)


def test_passages_carry_source_page_and_heading() -> None:
    first, second = passages_of(document())
    assert (first.text, first.source, dict(first.metadata)) == ("same", "a.md", {"heading": "Top"})
    assert dict(second.metadata) == {"page": 2}


def test_ids_are_stable_and_distinct() -> None:
    ids = [p.id for p in passages_of(document())]
    assert ids == [p.id for p in passages_of(document())]
    assert len({*ids, *(p.id for p in passages_of(document("b.md")))}) == 4


def test_headings_are_embedded_with_the_text() -> None:
    first, second = passages_of(document())
    assert embedding_text(first) == "Top\nsame"
    assert embedding_text(second) == embedding_text(Passage(id="x", text="same")) == "same"
