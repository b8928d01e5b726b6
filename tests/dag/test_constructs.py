"""What is refused around stages, and where; see the tests of each construct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import control_library
import pytest
from control_library import (
    load,
)

import adjoin
from adjoin import dag
from adjoin.errors import DefinitionError, YamlError

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
    names: dict[str, Any] = {**vars(control_library), "adjoin": adjoin, "dag": dag}
    exec(compile(file.read_text(), str(file), "exec"), names)
    with pytest.raises(DefinitionError, match=WRONG_PYTHON[code]) as caught:
        _ = names["w"].graph
    assert caught.value.where.startswith(str(file))


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
