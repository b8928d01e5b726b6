from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adjoin.errors import InputError
from adjoin.evaluation.metrics import (
    Metric,
    Relevant,
    as_text,
    contains,
    exact,
    f1,
    normalised,
    numeric,
    parse_metric,
)
from adjoin.types import Passage

#: Words that normalisation leaves alone.
words = st.lists(st.sampled_from(["paris", "rome", "7", "river", "mill"]), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("  an  apple,\n a pear ", "apple pear"),
        ("Theatre and another", "theatre and another"),
        ("1,234.5", "12345"),
        ("A", "a"),
        ("", ""),
    ],
)
def test_normalised_as_squad_does(text: str, normal: str) -> None:
    assert normalised(text) == normal


@pytest.mark.parametrize(
    ("answer", "reference", "scores"),
    [
        ("The Paris.", "paris", (1, 1, 1)),
        ("It is Paris, France", "Paris", (0, 1, 2 / 5)),
        ("Paris", "It is Paris, France", (0, 0, 2 / 5)),
        ("Rome", "Paris", (0, 0, 0)),
        ("15", "5", (0, 0, 0)),
        ("", "Paris", (0, 0, 0)),
        (None, "Paris", (0, 0, 0)),
        (42, 42.0, (1, 1, 1)),
        ("to to be", "to be be", (0, 0, 2 / 3)),
        ({"text": "Paris", "finish_reason": "stop"}, "Paris", (1, 1, 1)),
        ({"content": "Paris", "tool_calls": []}, "Paris", (1, 1, 1)),
    ],
)
def test_texts(answer: Any, reference: Any, scores: tuple[float, float, float]) -> None:
    found = (exact(answer, reference), contains(answer, reference), f1(answer, reference))
    assert found == pytest.approx(scores)


@given(words, words)
def test_f1_is_symmetric_and_exact_is_its_maximum(one: list[str], other: list[str]) -> None:
    a, b = " ".join(one), " ".join(other)
    assert f1(a, b) == f1(b, a)
    assert 0 <= f1(a, b) <= 1
    assert (f1(a, b) == 1) == (sorted(one) == sorted(other))
    assert exact(a, b) <= contains(a, b)
    assert exact(a, b) <= f1(a, b)


@given(words, words, words)
def test_an_answer_contains_what_it_is_made_of(
    before: list[str], middle: list[str], after: list[str]
) -> None:
    assert contains(" ".join([*before, *middle, *after]), " ".join(middle)) == 1


@given(st.text(), st.text())
def test_no_text_is_out_of_bounds(answer: str, reference: str) -> None:
    for score in (exact, contains, f1, numeric):
        assert 0 <= score(answer, reference) <= 1
    assert exact(answer, answer) == 1
    assert normalised(normalised(answer)) == normalised(answer) or not normalised(answer)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("First 3, then 4. The answer is 1,234.", 1234, 1),
        ("#### 18", "18", 1),
        ("18 dollars, or 19", 18, 0),
        ("about 0.3333333", 1 / 3, 1),
        ("-5", 5, 0),
        ("10-5", 5, 1),
        ("none", 5, 0),
        (7, "7.0", 1),
    ],
)
def test_the_last_number_counts(answer: Any, reference: Any, score: float) -> None:
    assert numeric(answer, reference) == score


def test_a_tolerance_is_absolute() -> None:
    metric = parse_metric("numeric@0.5")
    assert metric.of_answer("3.6", [4]) == 1
    assert metric.of_answer("3.4", [4]) == 0
    assert parse_metric("numeric@0").of_answer("4", [4]) == 1


def test_the_best_of_the_accepted_answers_counts() -> None:
    assert parse_metric("exact").of_answer("NYC", ["New York", "nyc"]) == 1


PASSAGES = [
    Passage(id="x1", text="Nothing here.", source="docs/a/one.md"),
    Passage(id="x2", text="The mill is\nOLD.", source="docs/a/two.md"),
]


@pytest.mark.parametrize(
    ("relevant", "matches"),
    [
        (Relevant(name="x2"), True),
        (Relevant(name="docs/a/two.md"), True),
        (Relevant(name="two.md"), True),
        (Relevant(name="a/two.md"), True),
        (Relevant(name="wo.md"), False),
        (Relevant(name="docs"), False),
        (Relevant(name="mill is old"), False),
        (Relevant(text="mill is old"), True),
        (Relevant(text="x2"), False),
    ],
)
def test_what_is_relevant(relevant: Relevant, matches: bool) -> None:
    assert relevant.matches(PASSAGES[1]) is matches


def test_recall_looks_at_the_first_k() -> None:
    one, two = parse_metric("recall@1"), parse_metric("recall@2")
    assert one.of_passages(PASSAGES, [Relevant(name="x2")]) == 0
    assert two.of_passages(PASSAGES, [Relevant(name="x2")]) == 1
    assert one.of_passages(PASSAGES, [Relevant(name="x9"), Relevant(name="x1")]) == 1
    assert two.of_passages([], [Relevant(name="x1")]) == 0


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("exact", Metric("exact")),
        ("f1", Metric("f1", binary=False)),
        ("numeric", Metric("numeric", tolerance=1e-6)),
        ("recall@5", Metric("recall@5", k=5)),
    ],
)
def test_metrics_by_name(text: str, metric: Metric) -> None:
    assert parse_metric(text) == metric
    assert metric.needs == ("relevant" if metric.k else "answer")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exct", "did you mean 'exact'"),
        ("bleu", "no metric 'bleu'"),
        ("exact@2", "no metric"),
        ("recall", "write recall@5"),
        ("recall@0", "write recall@5"),
        ("recall@²", "write recall@5"),
        ("recall@1001", "write recall@5"),
        ("numeric@x", "write numeric@0.01"),
        ("numeric@-1", "write numeric@0.01"),
        ("numeric@inf", "write numeric@0.01"),
        ("numeric@nan", "write numeric@0.01"),
    ],
)
def test_what_is_no_metric(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_metric(text)


def test_other_answers_are_their_json() -> None:
    assert as_text(["a", 1]) == '["a", 1]'
    assert as_text(True) == "true"
    assert as_text(2.5) == "2.5"
