"""Conditions, fan-outs, loops, workflows as functions: in Python, in YAML, and what they mean."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from dag_library import REGISTRY as LIBRARY
from interpreter import run

import adjoin
from adjoin import dag
from adjoin.dag import Each, Expression, Function, Reference, Repeat
from adjoin.errors import DefinitionError, GraphError, InputError, StageError, YamlError
from adjoin.types import Passage


def search(q: str) -> list[Passage]:
    return [Passage(id="1", text=q, score=len(q) / 10)]


def web(q: str) -> list[Passage]:
    return [Passage(id="2", text=f"web {q}", score=1.0)]


def answer(part: str, passages: list[Passage], seed: int = 0) -> str:
    if part == "bad":
        raise ValueError("no answer")
    return f"{part}/{len(passages)}/{seed}"


def merge(found: list[Passage], more: list[Passage] | None = None) -> list[Passage]:
    return [*found, *(more or [])]


def words(text: str) -> list[str]:
    return text.split()


def texts(items: list[Any]) -> str:
    return "|".join(map(str, items))


def extend(thoughts: list[str], q: str) -> list[str]:
    return [*thoughts, q]


def double(n: int) -> int:
    return 2 * n


def flag(q: str) -> bool:
    return q == "yes"


def told(text: str, note: Any = None) -> str:
    return f"{text}:{note}"


SEARCH, WEB, ANSWER, MERGE, WORDS = map(dag.builtin, (search, web, answer, merge, words))
TEXTS, EXTEND, DOUBLE, FLAG, TOLD = map(dag.builtin, (texts, extend, double, flag, told))
REGISTRY = {
    each.ref: each
    for each in (SEARCH, WEB, ANSWER, MERGE, WORDS, TEXTS, EXTEND, DOUBLE, FLAG, TOLD)
}


def load(stages: str, outputs: str, rest: str = "") -> dag.Graph:
    inputs = "{q: {type: string, default: q}, n: {type: integer, default: 3}}"
    lines = ["apiVersion: adjoin/v1", "kind: Workflow", "metadata: {name: w}", "spec:"]
    lines += [f"  inputs: {inputs}", "  stages:"]
    lines += [f"    {line}" for line in textwrap.dedent(stages).strip().splitlines()]
    lines += [f"  outputs: {outputs}", rest]
    return dag.load_yaml("\n".join(lines), file="w.yaml", registry=REGISTRY)


def executed(graph: dag.Graph, **inputs: Any) -> tuple[Any, set[str]]:
    def call(function: Function, arguments: dict[str, Any]) -> Any:
        assert function.call is not None
        return function.call(**arguments)

    return run(graph, inputs, call)


# --- when -----------------------------------------------------------------------------------------


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


# --- each -----------------------------------------------------------------------------------------


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


WRONG_PYTHON = {
    "ANSWER(adjoin.each(parts), found, seed=adjoin.each(3))": "elements of two lists",
    "ANSWER(adjoin.each(parts), adjoin.each(parts))": "elements of two lists",
    "ANSWER.options(each=2)(adjoin.each(parts), found)": "elements of two lists",
    "adjoin.each(parts)": "only a call of a function fans out",
    "TOLD.options(when=adjoin.each([True]))(q)": "a condition is decided once",
    "TOLD(adjoin.each(adjoin.each([['a']])))": "each takes a list as it is",
    "TOLD.options(on_error='skip')(q)": "on_error is given without each",
    "TOLD(adjoin.each(q))": "each takes a list or a number, but input 'q' is string",
    "TOLD(adjoin.each(1.5))": "each takes a list or a number, but 1.5 is number",
    "DOUBLE(adjoin.each(parts))": r"'double' takes integer, but \$\{item\} is string",
    "TOLD.options(at_once=0)(adjoin.each(parts))": "at_once must be a whole number from 1 to 1000",
    "TOLD.options(on_error='x')(adjoin.each(parts))": "on_error is fail, skip, collect, not 'x'",
    "TOLD.options(each=10_001)(q)": "at most 10000 elements",
    "TOLD.options(whem=q == 'a')(q)": "no option 'whem'; did you mean 'when'",
    "TOLD.options(when=q)(q)": "a condition is true or false, but input 'q' is string",
    "TOLD.options(when=q < 1)(q)": "string < integer cannot be computed",
    "TOLD.options(repeat=adjoin.until(lambda r: r == 'x', max=3))(q)": "no parts to carry",
    "TOLD.options(repeat=adjoin.until(lambda r: r == 'x', max=3, carry='nope'))(q)": "no argument",
    "TOLD.options(repeat=adjoin.until(lambda r: r == 'x', max=0, carry='text'))(q)": "1 to 1000",
    "TOLD.options(repeat=adjoin.until(lambda r: r, max=2, carry='text'))(q)": "a condition is true",
    "WORDS.options(repeat=adjoin.until(lambda r: adjoin.size(r) > 2, max=2, carry='text'))(q)": (
        r"takes string as 'text', but gives list\[string\]"
    ),
    "step.options(repeat=adjoin.until(lambda r: r.don, max=2))(q)": "has no field 'don'",
    "same.options(repeat=adjoin.until(lambda r: r.other == 'x', max=2))(q)": "nothing would change",
    "itself(q)": "workflow 'itself' uses itself",
}


@pytest.mark.parametrize("code", WRONG_PYTHON)
def test_wrong_constructs_are_refused_with_their_line(code: str, tmp_path: Path) -> None:
    file = tmp_path / "flow.py"
    file.write_text(
        "@dag.workflow\ndef step(q: str, thoughts: list[str] = []):\n"
        "    return {'thoughts': EXTEND(thoughts, q), 'done': q == 'x'}\n"
        "@dag.workflow\ndef same(q: str):\n    return {'other': TOLD(q)}\n"
        "@dag.workflow\ndef itself(q: str):\n    return itself(q)\n"
        "@dag.workflow\ndef w(q: str, parts: list[str], found: list[Passage]):\n"
        f"    return {code}\n"
    )
    names: dict[str, Any] = dict(globals())
    exec(compile(file.read_text(), str(file), "exec"), names)
    with pytest.raises(DefinitionError, match=WRONG_PYTHON[code]) as caught:
        _ = names["w"].graph
    assert caught.value.where.startswith(str(file))


def test_a_name_that_a_construct_binds_is_no_stage() -> None:
    @dag.workflow
    def clash(q: str) -> Any:
        item = WORDS(q)
        return TOLD(adjoin.each(item))

    with pytest.raises(GraphError, match="each binds the name 'item', which is taken"):
        _ = clash.graph


# --- repeat ---------------------------------------------------------------------------------------


@dag.workflow
def step(q: str, thoughts: list[str] = []) -> Any:  # noqa: B006 - captured as a constant
    thoughts = EXTEND(thoughts, q)
    return {"thoughts": thoughts, "done": adjoin.size(thoughts) >= 3}


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
STEP = """
  workflows:
    step:
      inputs: {q: string, thoughts: {type: "list[string]", default: []}}
      stages: {thoughts: {uses: extend, with: {thoughts: "${inputs.thoughts}", q: "${inputs.q}"}}}
      outputs: {thoughts: "${thoughts}", done: "${size(thoughts) >= 3}"}
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


# --- workflows as functions -----------------------------------------------------------------------


def test_a_workflow_in_a_workflow_is_one_stage() -> None:
    @dag.workflow
    def outer(q: str) -> Any:
        one = step(q)
        return {"first": one.thoughts[0], "again": step(q, thoughts=one.thoughts)}

    stage = outer.graph.stage("one")
    assert stage.function.ref == "workflow:step" and stage.function.graph == step.graph
    assert str(stage.function.returns) == "{thoughts: list[string], done: boolean}"
    assert stage.model is None and outer.graph.depth == 2
    outputs, done = executed(outer.graph, q="q")
    assert outputs == {"first": "q", "again": {"thoughts": ["q", "q"], "done": False}}
    assert done == {"one", "one/thoughts", "step", "step/thoughts"}


def test_what_nested_workflows_work_with_is_known() -> None:
    retrieve, embed, generate = (LIBRARY[name] for name in ("retrieve", "embed", "generate"))

    @dag.workflow(models={"small": "smollm2-135m"})
    def inner(q: str) -> Any:
        return retrieve(embed(q, model="small"), collection="handbook")

    @dag.workflow(models={"large": "big"})
    def outer(q: str) -> Any:
        return [inner(q), generate(q, model="large")]

    @dag.workflow(models={"small": "other"})
    def conflicting(q: str) -> Any:
        return inner(q)

    graph = outer.graph
    assert graph.model_names() == {"small", "large"} and graph.collection_names() == {"handbook"}
    assert graph.stage("inner").collections == {"handbook"}
    assert graph.stage("inner").collection is None
    assert set(graph.models) == {"small", "large"}
    with pytest.raises(GraphError, match="declares the model 'small' in another way"):
        _ = conflicting.graph


def test_an_output_that_may_be_skipped_may_be_null() -> None:
    @dag.workflow
    def maybe(q: str) -> Any:
        return WEB.options(when=q == "web")(q)

    @dag.workflow
    def takes(q: str) -> Any:
        return MERGE(SEARCH(q), maybe(q))

    @dag.workflow
    def needs(q: str) -> Any:
        return MERGE(maybe(q))

    assert str(maybe.function.returns) == "list[Passage] | null"
    assert len(executed(takes.graph, q="web")[0]) == 2
    assert len(executed(takes.graph, q="x")[0]) == 1
    with pytest.raises(GraphError, match=r"takes list\[Passage\], but stage 'maybe' gives"):
        _ = needs.graph


def test_the_version_covers_nested_workflows() -> None:
    def made(text: str, limit: int) -> str:
        @dag.workflow
        def inner(q: str) -> Any:
            return TOLD(q, text)

        @dag.workflow
        def outer(q: str) -> Any:
            until = adjoin.until(lambda result: result == "x", max=limit, carry="q")
            return inner.options(repeat=until)(q)

        return outer.graph.version

    assert made("a", 2) == made("a", 2)
    assert len({made("a", 2), made("b", 2), made("a", 3)}) == 3


def test_two_workflows_of_one_name_are_refused() -> None:
    def inner(text: str) -> dag.Workflow:
        @dag.workflow
        def same(q: str) -> Any:
            return TOLD(q, text)

        return same

    one, two = inner("a"), inner("b")

    @dag.workflow
    def outer(q: str) -> Any:
        return [one(q), two(q)]

    with pytest.raises(GraphError, match="two workflows are called 'same'"):
        _ = outer.graph


def nested(depth: int) -> dag.Workflow:
    inner: Any = TOLD if depth == 1 else nested(depth - 1)

    @dag.workflow(name=f"w{depth}")
    def outer(q: str) -> Any:
        return [inner(q), inner(q)]

    return outer


def test_nesting_is_bounded_and_wide_nesting_is_quick() -> None:
    graph = nested(16).graph
    assert graph.depth == 16 and len(graph.nested) == 15
    assert dag.from_wire(graph.to_wire(), lambda ref, _: REGISTRY[ref]) == graph
    assert dag.load_yaml(graph.to_yaml(), registry=REGISTRY) == graph
    assert len(graph.to_svg()) < 200_000 and len(graph.to_mermaid()) < 50_000
    with pytest.raises(GraphError, match="more than 16 levels"):
        _ = nested(17).graph


def test_data_cannot_nest_without_end() -> None:
    graph = nested(2).graph
    digest = graph.stage("w1").function.digest
    looped = graph.to_wire().replace(TOLD.digest.encode(), digest.encode())
    looped = looped.replace(b'"ref":"told"', b'"ref":"workflow:told"')
    with pytest.raises(GraphError, match="levels deep"):
        dag.from_wire(looped, lambda ref, _: REGISTRY[ref])
    with pytest.raises(GraphError, match="lacks the workflow"):
        dag.from_wire(
            graph.to_wire().replace(f'"{digest}":{{'.encode(), b'"x":{'),
            lambda ref, _: REGISTRY[ref],
        )


# --- errors in YAML -------------------------------------------------------------------------------

T = "a: {uses: told, with: {text: a}"
WRONG_YAML = [
    # stages, where the error is, message
    (T + ", when: maybe}", "mayb", "a condition is true or false, but it is given string"),
    (T + ", when: '${inputs.n >}'}", "'${i", "expected a value before '}'"),
    (T + ", when: '${inputs.m > 1}'}", "'${i", "names no input"),
    (T + ", when: '${nope > 1}'}", "'${n", "'a', when: .* names no stage"),
    (T + ", when: '${a == null}'}", "a: {", "a → a wait for each other"),
    (T + ", each: {}}", "{}}", "a list or a number"),
    (T + ", each: {n: 1, in: []}}", "{n: ", "a list or a number"),
    (T + ", each: {n: 1, as: x}}", "x}}", "binds index only"),
    (T + ", each: {n: '${inputs.q}'}}", "{n: ", "the number of elements, but input 'q' is string"),
    (T + ", each: {in: '${inputs.q}'}}", "{in:", "each takes a list, but input 'q' is string"),
    (T + ", each: {in: [1], as: a}}", "{in:", "the name 'a', which is taken"),
    (T + ", each: {in: [1], as: in}}", "{in:", "the name 'in', which is taken"),
    (T + ", each: {in: [1], as: x-y}}", "{in:", "cannot name an element"),
    (T + ", each: {in: [1], on_error: no}}", "no}}", "on_error is fail, skip, collect, not 'no'"),
    (T + ", each: {in: [1], at_once: 0}}", "0}}", "from 1 to 1000"),
    (T + ", each: {in: [1], of: 0}}", "of: ", "each has no key 'of'"),
    (T.replace("text: a", 'text: "${item}"') + "}", '"${i', "names no stage"),
    (T.replace("text: a", 'text: "${item}"') + ", each: {in: [1]}}", '"${i', r"\$\{item\} is int"),
    (T.replace("text: a", 'text: "${itm}"') + ", each: {in: [x]}}", '"${i', "did you mean 'item'"),
    (T + ", repeat: {until: true}}", "{unt", "needs the key 'max'"),
    (T + ", repeat: {until: true, max: 1001}}", "1001", "from 1 to 1000"),
    (T + ", repeat: {until: true, max: 2}}", "{unt", "no parts to carry"),
    (
        T + ", repeat: {until: '${reslt == 1}', max: 2, carry: text}}",
        "{unt",
        "did you mean 'result'",
    ),
    (
        T + ", repeat: {until: '${result.x}', max: 2, carry: text}}",
        "{unt",
        "string has no field 'x'",
    ),
]


@pytest.mark.parametrize(("stages", "at", "message"), WRONG_YAML)
def test_wrong_constructs_have_their_place(stages: str, at: str, message: str) -> None:
    with pytest.raises(YamlError, match=message) as caught:
        load(stages, "${a}")
    found = caught.value.details
    assert (found["line"], found["column"]) == (7, f"    {stages}".index(at) + 1)


LOCAL = "  workflows:\n    inner: {stages: {x: {uses: %s, with: {text: y}}}, outputs: '${x}'}\n"


@pytest.mark.parametrize(
    ("uses", "rest", "message"),
    [
        ("inner", LOCAL % "inner", "'inner' uses itself"),
        ("inner", LOCAL % "tld", "no function 'tld'; did you mean 'told'"),
        ("iner", LOCAL % "told", "no function 'iner'; did you mean 'inner'"),
        ("told", LOCAL % "told", "nothing uses the workflow 'inner'"),
        ("told", (LOCAL % "told").replace("inner", "told"), "a built-in function, too"),
        ("inner", (LOCAL % "told").replace("stages:", "serve: {}, stages:"), "no key 'serve'"),
        ("inner", (LOCAL % "told").replace("${x}", "${z}"), "names no stage"),
        ("inner", LOCAL.replace("inner", "a-b") % "told", "cannot name a workflow"),
    ],
)
def test_wrong_local_workflows_are_refused(uses: str, rest: str, message: str) -> None:
    with pytest.raises(YamlError, match=message):
        load(f"a: {{uses: {uses}{', with: {text: x}' if uses == 'told' else ''}}}", "${a}", rest)


def test_the_public_names_are_the_packages() -> None:
    assert adjoin.each is dag.each and adjoin.size is dag.size and adjoin.until is dag.until
    assert adjoin.size([1, 2]) == 2
