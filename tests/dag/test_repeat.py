from __future__ import annotations

from typing import Any

import pytest
from control_library import (
    DOUBLE,
    STEP,
    executed,
    load,
    step,
)

import adjoin
from adjoin import dag
from adjoin.dag import Expression, Reference, Repeat
from adjoin.errors import InputError


@dag.workflow
def loops(q: str, n: int = 1) -> Any:
    thinking = step.options(repeat=adjoin.until(lambda result: result.done, max=5))(q)
    until = adjoin.until(
        lambda result, iteration: (result > 20) | (iteration >= n), max=9, carry="n"
    )
    grown = DOUBLE.options(repeat=until)(n)
    return {"thoughts": thinking.thoughts, "grown": grown}


LOOPS = """
thinking: {uses: step, repeat: {until: "${result.done}", max: 5}, with: {q: "${inputs.q}"}}
grown:
  uses: double
  repeat: {until: "${result > 20 || iteration >= inputs.n}", max: 9, carry: n}
  with: {n: "${inputs.n}"}
"""


def test_a_loop_carries_results_by_name_until_a_condition_holds() -> None:
    outputs, done = executed(loops.graph, q="t", n=3)
    assert outputs == {"thoughts": ["t", "t", "t"], "grown": 24}
    assert {path for path in done if path.startswith("thinking")} == {
        f"thinking#{number}{rest}" for number in (1, 2, 3) for rest in ("", "/thoughts")
    }
    assert executed(loops.graph, q="t", n=1)[0]["grown"] == 2


def test_a_loop_is_the_same_in_yaml() -> None:
    graph = load(LOOPS, '{thoughts: "${thinking.thoughts}", grown: "${grown}"}', STEP)
    for id in ("thinking", "grown"):
        assert graph.stage(id) == loops.graph.stage(id)
    assert graph.stage("thinking").function.digest == step.graph.version


def test_a_loop_ends_at_its_bound() -> None:
    never = Repeat(Expression("result < 0"), 4, carry="n")
    graph = dag.build(
        "w",
        inputs=[],
        stages=[dag.Stage("a", DOUBLE, {"n": dag.Literal(1)}, dag.Policy(), repeat=never)],
        outputs={"output": Reference("a")},
        bare=True,
    )
    assert executed(graph) == (16, {"a#1", "a#2", "a#3", "a#4"})


def test_condition_then_fan_out_then_loop() -> None:
    graph = load(
        """
        a:
          uses: double
          when: "${inputs.n > 0}"
          each: {in: [1, 5, 9], as: start}
          repeat: {until: "${result > start * 3}", max: 5, carry: n}
          with: {n: "${start}"}
        """,
        "${a}",
    )
    assert executed(graph)[0] == [4, 20, 36]
    assert "a[2]#2" in executed(graph)[1] and "a[2]#3" not in executed(graph)[1]
    assert executed(graph, n=0) == (None, set())


def test_a_carried_value_must_fit() -> None:
    bounded = dag.builtin(double_small)
    repeat = Repeat(Expression("result > 1000"), 9, carry="n")
    stage = dag.Stage("a", bounded, {}, dag.Policy(), repeat=repeat)
    assert stage.next_arguments({"n": 1, "m": 2}, 4) == {"n": 4, "m": 2}
    with pytest.raises(InputError, match="'n': must be integer, is null"):
        stage.next_arguments({"n": 1}, None)
    by_name = dag.Stage("a", bounded, {}, dag.Policy(), repeat=Repeat(Reference("x"), 9))
    with pytest.raises(InputError, match="name the argument that it becomes"):
        by_name.next_arguments({"n": 1}, 4)
    assert by_name.next_arguments({"n": 1}, {"n": 2, "other": 3}) == {"n": 2}


def double_small(n: int) -> int:
    return 2 * n
