from __future__ import annotations

from typing import Any

import pytest
from control_library import (
    ANSWER,
    FLAG,
    MERGE,
    SEARCH,
    TOLD,
    WEB,
    WORDS,
    executed,
    load,
)

from adjoin import dag
from adjoin.dag import Expression, Reference
from adjoin.errors import InputError, YamlError


@dag.workflow
def conditional(q: str) -> Any:
    found = SEARCH(q)
    more = WEB.options(when=found[0].score < 0.4)(q)
    return {"all": MERGE(found, more), "more": more, "text": ANSWER(q, more)}


CONDITIONAL = """
found: {uses: search, with: {q: "${inputs.q}"}}
more: {uses: web, when: "${found[0].score<0.4}", with: {q: "${inputs.q}"}}
merge: {uses: merge, with: {found: "${found}", more: "${more}"}}
answer: {uses: answer, with: {part: "${inputs.q}", passages: "${more}"}}
"""


def test_a_condition_skips_what_needs_its_stage() -> None:
    outputs, done = executed(conditional.graph, q="low")
    assert outputs["text"] == "low/1/0" and done == {"found", "more", "merge", "answer"}
    outputs, done = executed(conditional.graph, q="long enough")
    # merge accepts null and runs, answer does not and is skipped
    assert done == {"found", "merge"}
    assert outputs["more"] is None and outputs["text"] is None
    assert [each.id for each in outputs["all"]] == ["1"]
    assert conditional.graph.skippable == {"more", "answer"}


def test_a_condition_is_the_same_in_yaml() -> None:
    graph = load(CONDITIONAL, '{all: "${merge}", more: "${more}", text: "${answer}"}')
    assert graph.stage("more") == conditional.graph.stage("more")
    assert graph.stage("more").when == Expression("found[0].score < 0.4")


def test_skipping_goes_on_until_null_is_taken() -> None:
    graph = load(
        """
        a: {uses: web, when: "${inputs.n > 5}", with: {q: "${inputs.q}"}}
        b: {uses: told, with: {text: "<${a[0].text}>"}}
        c: {uses: told, with: {text: "${b}", note: x}}
        d: {uses: told, with: {text: d, note: "${c}"}}
        e: {uses: told, with: {text: e, note: ["${c}", "${inputs.n}"]}}
        f: {uses: told, with: {text: "${c == null ? 'none' : c}"}}
        g: {uses: words, when: "${c != null}", with: {text: "${inputs.q}"}}
        h: {uses: told, each: {in: "${g}"}, with: {text: "${item}"}}
        """,
        '["${d}", "${e}", "${f}", "${h}", "is ${b}"]',
    )
    outputs, done = executed(graph)
    assert outputs == ["d:None", "e:[None, 3]", "none:None", None, None]
    assert done == {"d", "e", "f"}
    outputs, done = executed(graph, n=6)
    assert done == {"a", "b", "c", "d", "e", "f", "g", "h[0]"}
    assert outputs[3:] == [["q:None"], "is <web q>:None"]


def test_a_stage_decides_with_another_ones_result() -> None:
    @dag.workflow
    def decides(q: str) -> Any:
        yes = FLAG(q)
        no = FLAG.options(when=~yes)("yes")
        return [TOLD.options(when=yes)(q), TOLD.options(when=no)("no"), WORDS(q)]

    assert executed(decides.graph, q="yes")[0] == ["yes:None", None, ["yes"]]
    assert executed(decides.graph, q="x")[0] == [None, "no:None", ["x"]]
    # a condition that is a skipped stage's value has none: its stage is skipped, too
    assert executed(decides.graph, q="yes")[1] == {"yes", "told", "words"}


def test_a_condition_must_be_true_or_false() -> None:
    with pytest.raises(YamlError, match="a condition is true or false, but input 'n' is integer"):
        load('a: {uses: told, when: "${inputs.n}", with: {text: a}}', "${a}")
    stage = dag.Stage("a", TOLD, {}, dag.Policy(), when=Reference("x"))
    with pytest.raises(InputError, match="must be true or false, got a int"):
        stage.should_run({"x": 1})
    with pytest.raises(InputError, match="must be true or false, got null"):
        stage.should_run({"x": None})
