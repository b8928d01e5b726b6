from __future__ import annotations

from typing import Any

import pytest
from control_library import (
    ANSWER,
    DOUBLE,
    SEARCH,
    TEXTS,
    TOLD,
    WORDS,
    executed,
    load,
)

import adjoin
from adjoin import dag
from adjoin.dag import Each, Reference
from adjoin.errors import Cancelled, GraphError, InputError, StageError


@dag.workflow
def fans(q: str, n: int = 3) -> Any:
    parts = WORDS(q)
    found = SEARCH(q)
    part = adjoin.each(parts)
    answers = ANSWER(part, passages=found)
    samples = ANSWER(q, found, seed=adjoin.each(n))
    twice = DOUBLE.options(each=2)(n)
    return {"answers": answers, "samples": samples, "twice": twice, "first": answers[0]}


FANS = """
parts: {uses: words, with: {text: "${inputs.q}"}}
found: {uses: search, with: {q: "${inputs.q}"}}
answers: {uses: answer, each: {in: "${parts}"}, with: {part: "${item}", passages: "${found}"}}
samples:
  uses: answer
  each: {n: "${inputs.n}"}
  with: {part: "${inputs.q}", passages: "${found}", seed: "${index}"}
twice: {uses: double, each: {n: 2}, with: {n: "${inputs.n}"}}
"""


def test_a_call_fans_out_over_a_list_or_a_number() -> None:
    outputs, done = executed(fans.graph, q="a b", n=2)
    assert outputs == {
        "answers": ["a/1/0", "b/1/0"],
        "samples": ["a b/1/0", "a b/1/1"],
        "twice": [4, 4],
        "first": "a/1/0",
    }
    assert {"answers[0]", "answers[1]", "samples[1]", "twice[1]"} <= done


def test_a_fan_out_is_the_same_in_yaml() -> None:
    outputs = '{a: "${answers}", s: "${samples}", t: "${twice}"}'
    graph = load(FANS, outputs)
    for id in ("answers", "samples", "twice"):
        assert graph.stage(id) == fans.graph.stage(id)


def test_an_empty_list_gives_an_empty_list() -> None:
    outputs, done = executed(load(FANS, '["${answers}", "${samples}", "${twice}"]'), q="", n=0)
    assert outputs == [[], [], [0, 0]]
    assert done == {"parts", "found", "twice[0]", "twice[1]"}


@pytest.mark.parametrize(
    ("on_error", "expected"),
    [
        ("skip", ["a/1/0", "c/1/0"]),
        (
            "collect",
            [
                "a/1/0",
                {"error": {"code": "function", "message": "ValueError: no answer"}},
                "c/1/0",
            ],
        ),
    ],
)
def test_what_an_element_that_failed_does(on_error: str, expected: list[Any]) -> None:
    graph = load(
        FANS.replace('{in: "${parts}"}', f'{{in: "${{parts}}", on_error: {on_error}}}'),
        '["${answers}", "${samples}", "${twice}"]',
    )
    assert executed(graph, q="a bad c")[0][0] == expected


def test_a_cancelled_run_is_no_failed_element() -> None:
    each = Each(Reference("x"), on_error="skip")
    assert each.gather([1, StageError("x"), 3]) == [1, 3]
    with pytest.raises(Cancelled):
        each.gather([1, Cancelled("stop"), 3])


def test_by_default_an_element_that_failed_fails_the_stage() -> None:
    graph = load(FANS, '["${answers}", "${samples}", "${twice}"]')
    with pytest.raises(StageError, match="stage 'answers': ValueError: no answer"):
        executed(graph, q="a bad c")


def test_collected_errors_have_a_type() -> None:
    @dag.workflow
    def collects(q: str) -> Any:
        return ANSWER.options(on_error="collect")(adjoin.each(WORDS(q)), passages=SEARCH(q))

    assert str(collects.graph.stage("answer").returns) == (
        "list[string | {error: {code: string, message: string}}]"
    )


def test_elements_may_be_in_lists_and_expressions() -> None:
    @dag.workflow
    def inner(q: str) -> Any:
        n = adjoin.each(3)
        return TEXTS([q, n + 1, {"n": n * 2}])

    assert executed(inner.graph, q="q")[0] == [
        "q|1|{'n': 0}",
        "q|2|{'n': 2}",
        "q|3|{'n': 4}",
    ]


def test_the_number_of_elements_is_bounded() -> None:
    each = Each(Reference("x"))
    assert len(each.elements({"x": [0] * 10_000})) == 10_000
    with pytest.raises(InputError, match="at most 10000 elements, got 10001"):
        each.elements({"x": [0] * 10_001})
    with pytest.raises(InputError, match="a list, got a str"):
        each.elements({"x": "abc"})
    count = Each(Reference("x"), counts=True)
    with pytest.raises(InputError, match="at most 10000"):
        count.elements({"x": 10_001})
    for wrong in (-1, True, 1.0, [1], None):
        with pytest.raises(InputError, match="the number of elements"):
            count.elements({"x": wrong})


def test_a_name_that_a_construct_binds_is_no_stage() -> None:
    @dag.workflow
    def clash(q: str) -> Any:
        item = WORDS(q)
        return TOLD(adjoin.each(item))

    with pytest.raises(GraphError, match="each binds the name 'item', which is taken"):
        _ = clash.graph
