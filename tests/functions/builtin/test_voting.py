from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_context import call

from adjoin import functions as fn
from adjoin.errors import InputError
from adjoin.functions.builtin.voting import normalised, select, vote
from adjoin.types import Generation, Reply

_answers = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=9)


@given(_answers)
def test_the_winner_has_the_most_votes_and_came_first_among_equals(answers: list[str]) -> None:
    counts = Counter(answers)
    most = max(counts.values())
    assert vote(list(answers)) == next(each for each in answers if counts[each] == most)


@given(_answers, st.data())
def test_a_whole_weight_is_as_many_votes(answers: list[str], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 4), min_size=len(answers), max_size=len(answers)))
    repeated = [a for a, count in zip(answers, weights, strict=True) for _ in range(count)]
    assert vote(list(answers), weights=[float(w) for w in weights]) == vote(repeated)


def test_equal_answers_look_different() -> None:
    assert vote(["London", "Paris.", " **paris** "]) == "Paris."
    assert vote(["7", "42.0", "$42", "1,042"]) == "42.0"
    assert vote(["Yes", "no", "yes"], normalise=False) == "Yes"


def test_generations_replies_numbers_and_data_vote_too() -> None:
    assert vote([Generation(text="x"), "y", Reply("x")]) == "x"
    assert vote([1, 2.0, "2"]) == "2"
    assert vote([{"b": 1, "a": 2}, {"a": 2, "b": 1}, "z"]) == '{"a": 2, "b": 1}'
    assert vote([True, False, True]) == "true"


def test_nothing_does_not_vote() -> None:
    failed = {"error": {"code": "engine", "message": "died"}}
    assert vote([None, "", "  ", failed, failed, "a"]) == "a"
    for answers in ([], [None, ""]):
        with pytest.raises(InputError, match="no answer votes"):
            vote(list(answers))


def test_likelier_answers_weigh_more() -> None:
    sure = Generation(text="a", tokens=2, logprob=-0.2)
    unsure = Generation(text="b", tokens=1, logprob=-3.0)
    assert vote([unsure, unsure, sure]) == "b"
    assert vote([unsure, unsure, sure], by="logprob") == "a"
    # per token: a long answer is not less likely for being long
    long = Generation(text="b", tokens=100, logprob=-1.0)
    assert vote([sure, long], by="logprob") == "b"
    assert vote([sure, unsure], by="logprob", weights=[0.01, 1]) == "b"
    with pytest.raises(InputError, match="logprobs=True"):
        vote([sure, "a"], by="logprob")


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, math.inf], [1.0, math.nan]])
def test_weights_that_do_not_fit(weights: list[float]) -> None:
    with pytest.raises(InputError, match="weight"):
        vote(["a", "b"], weights=weights)


def test_an_answer_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="answer 1 is a object"):
        vote(["a", object()])


@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 12))
def test_select_takes_the_best_and_the_earlier_among_equals(scores: list[int], k: int) -> None:
    items = list(range(len(scores)))
    found = select(items, [float(score) for score in scores], k=k)
    assert found == sorted(items, key=lambda at: (-scores[at], at))[:k]


def test_select_one_is_a_list_of_one() -> None:
    assert call(fn.select, ["a", "b"], [0.1, 0.2]) == ["b"]
    assert select([], [], k=3) == []


@pytest.mark.parametrize("scores", [[1.0], [1.0, math.nan], [1.0, "2"], [1.0, None]])
def test_scores_that_do_not_fit(scores: Any) -> None:
    with pytest.raises(InputError, match="score"):
        select(["a", "b"], scores)
    with pytest.raises(InputError, match="k is 0"):
        select([], [], k=0)
