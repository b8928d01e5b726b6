from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from adjoin.functions.engines.text import StopText

_letters = st.text(alphabet="ab.", max_size=40)
_stops = st.lists(st.text(alphabet="ab.", min_size=1, max_size=4), max_size=3)


@given(_letters, _stops, st.lists(st.integers(0, 40), max_size=6))
def test_any_cut_of_a_text_shows_what_comes_before_the_first_stop(
    text: str, stop: list[str], cuts: list[int]
) -> None:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(edges)]
    grown = StopText(tuple(stop))
    shown = ""
    for piece in pieces:
        shown += grown.extend(piece)
        # What was shown can never be taken back.
        assert grown.text.startswith(shown)
        if grown.stopped:
            break
    shown += grown.flush()

    assert shown == grown.text
    # The text is cut in the first piece that completes a stop string, at the first of those.
    ends = [text.index(word) + len(word) for word in stop if word in text]
    assert grown.stopped == bool(ends)
    if ends:
        seen = text[: min(edge for edge in edges if edge >= min(ends))]
        assert shown == seen[: min(seen.index(word) for word in stop if word in seen)]
    else:
        assert shown == text


def test_a_tail_that_may_become_a_stop_string_waits() -> None:
    text = StopText(("END",))
    assert text.extend("say EN") == "say "
    assert text.extend("ough") == "ENough"
    assert text.extend(" E") == " "
    assert text.extend("ND of it") == ""
    assert text.text == "say ENough "
