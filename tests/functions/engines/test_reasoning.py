from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adjoin.functions.engines.reasoning import Part, ReasoningSplit, opens_reasoning

#: Texts that are full of tags, their beginnings, and space.
_texts = st.lists(
    st.sampled_from(["<think>", "</think>", "<thi", "</th", "nk>", "<", " ", "\n", "a", "answer"]),
    max_size=12,
).map("".join)


def split(pieces: list[str], *, opened: bool = False) -> tuple[str, str]:
    """Answer and reasoning, as they were given out."""
    splitter = ReasoningSplit(opened=opened)
    parts = [part for piece in pieces for part in splitter.feed(piece)] + splitter.flush()
    assert all(part.text for part in parts)
    said = {kind: "".join(p.text for p in parts if p.reasoning is kind) for kind in (False, True)}
    assert (splitter.answer, splitter.reasoning) == (said[False], said[True])
    return said[False], said[True]


@given(st.data(), _texts, st.booleans())
def test_any_cutting_gives_the_same_split(data: st.DataObject, text: str, opened: bool) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    edges = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert split(pieces, opened=opened) == split([text], opened=opened)
    assert split(list(text), opened=opened) == split([text], opened=opened)


@given(_texts)
@example("<think>a</think>b")
def test_the_split_is_that_of_the_whole_text(text: str) -> None:
    """The definition, on a text that is there at once."""
    begun = text.lstrip()
    if begun.startswith("<think>"):
        reasoning, _, answer = begun.removeprefix("<think>").partition("</think>")
        assert split(list(text)) == (answer.lstrip(), reasoning)
    else:
        assert split(list(text)) == (text, "")


@pytest.mark.parametrize(
    ("text", "opened", "answer", "reasoning"),
    [
        ("Hello", False, "Hello", ""),
        ("<think>\nhm\n</think>\n\nParis", False, "Paris", "\nhm\n"),
        ("hm</think>Paris", True, "Paris", "hm"),
        ("<think>hm</think>Paris", True, "Paris", "hm"),
        ("never done", True, "", "never done"),
        ("<think>cut </th", False, "", "cut </th"),
        ("the tag <think> is for thoughts", False, "the tag <think> is for thoughts", ""),
        ("<thin", False, "<thin", ""),
        ("  ", False, "  ", ""),
        ("<think></think>", False, "", ""),
    ],
)
def test_examples(text: str, opened: bool, answer: str, reasoning: str) -> None:
    assert split(list(text), opened=opened) == (answer, reasoning)


def test_nothing_is_held_back_that_cannot_be_a_tag() -> None:
    splitter = ReasoningSplit()
    assert splitter.feed("<th") == []
    assert splitter.feed("e") == [Part("<the", False)]
    assert splitter.feed("<think>") == [Part("<think>", False)]
    thinking = ReasoningSplit(opened=True)
    assert thinking.feed("so") == [Part("so", True)]
    assert thinking.feed("</") == []
    assert thinking.thinking


def test_tokens_carry_ids_once_and_say_where_they_belong() -> None:
    splitter = ReasoningSplit(opened=True)
    first, second = splitter.tokens("so</think> Yes", (7,), 1, -0.5, last=False)
    assert (first.text, first.ids, first.reasoning, first.logprob) == ("so", (7,), True, -0.5)
    assert (second.text, second.ids, second.reasoning, second.choice) == ("Yes", (), False, 1)
    (last,) = ReasoningSplit().tokens("<", (8,), 0, None, last=True)
    assert last.text == "<"


def test_a_prompt_that_ends_with_the_tag_opens_reasoning() -> None:
    assert opens_reasoning("<|assistant|><think>\n")
    assert not opens_reasoning("<think> is a tag")
