"""Questions for measuring are the same each time, and can be answered."""

from __future__ import annotations

from typing import Any

from benchmarks.choices import CHOICES, questions, spread


def article(paragraphs: int) -> dict[str, Any]:
    def paragraph(at: int) -> dict[str, Any]:
        answers = [f"answer {at}-{letter}" for letter in "abc"] + [f"answer {at}", "x" * 61]
        asked = [
            {"id": f"{at}-{number}", "question": f"{number}? ", "answers": [{"text": answer}]}
            for number, answer in enumerate(answers)
        ]
        return {"context": f"passage {at}", "qas": asked}

    return {"paragraphs": [paragraph(at) for at in range(paragraphs)]}


def test_choices_are_different_and_hold_the_answer() -> None:
    found = list(questions([article(5)], "held-out", seed=0))
    assert len(found) == 4 * 4  # an answer that is too long asks nothing
    for each in found:
        choices = each["choices"]
        assert len(set(choices)) == CHOICES and each["answer"] in choices
        assert not any(a != b and a in b for a in choices for b in choices)


def test_the_parts_have_no_passage_in_common() -> None:
    parts = [
        {each["passage"] for each in questions([article(10)], part, 0)}
        for part in ("development", "held-out")
    ]
    assert parts[0] == {"passage 0", "passage 5"} and not parts[0] & parts[1]
    assert len(parts[1]) == 8


def test_the_seed_decides_and_other_articles_do_not() -> None:
    first = list(questions([article(5)], "held-out", 0))
    assert list(questions([article(5), article(5)], "held-out", 0))[: len(first)] == first
    assert list(questions([article(5)], "held-out", 1)) != first
    assert len({tuple(each["choices"]).index(each["answer"]) for each in first}) > 1


def test_so_many_are_taken_evenly() -> None:
    found = [{"at": at} for at in range(10)]
    assert [each["at"] for each in spread(found, 4)] == [0, 2, 5, 7]
    assert spread(found, 99) == found
