from __future__ import annotations

import importlib.resources
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import random_graphs
from dag_library import RAG_YAML, REGISTRY
from hypothesis import given, settings
from jsonschema import Draft202012Validator, ValidationError
from test_graph import graphs
from test_yaml import WRONG, A, workflow

from adjoin import dag
from adjoin.dag import datatypes as dt
from adjoin.dag.binding import literal
from adjoin.dag.parameter import Bounds, Parameter
from adjoin.dag.schema import json_schema, render
from adjoin.dag.yaml_nodes import parse
from adjoin.errors import InputError

SCHEMA = json_schema(REGISTRY)
VALIDATOR = Draft202012Validator(SCHEMA)


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        RAG_YAML,
        workflow(A),
        workflow("a: {uses: chunk, with: {text: x, size: '${inputs.n}'}, timeout: 1.5h}"),
        workflow("a: {uses: prompt, with: {template: {text: x}, anything: [1]}}"),
        workflow("a: {uses: embed, with: {texts: [a, '${inputs.q}'], model: m}}"),
        workflow(A, rest="  serve: {scale: {idle_after: 60s}, slo: {ttft: 2}}\n"),
    ],
)
def test_right_texts_keep_to_it(text: str) -> None:
    VALIDATOR.validate(parse(text, "w.yaml").plain())


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_every_graph_written_out_keeps_to_it(built: dag.Graph) -> None:
    VALIDATOR.validate(parse(built.to_yaml(), "w.yaml").plain())


NESTED = Draft202012Validator(json_schema(random_graphs.REGISTRY))


@settings(max_examples=40, deadline=None)
@given(random_graphs.graphs())
def test_every_construct_written_out_keeps_to_it(built: dag.Graph) -> None:
    NESTED.validate(parse(built.to_yaml(), "w.yaml").plain())


@pytest.mark.parametrize(
    "construct",
    [
        *("when: x", "when: 1", "each: {}", "each: []", "each: {in: x}", "each: {n: -1}"),
        *("each: {n: 1, in: []}", "each: {n: 1, as: x}", "each: {in: [], as: x-y}"),
        *(
            "each: {in: [], on_error: ignore}",
            "each: {in: [], at_once: 0}",
            "each: {in: [], of: 1}",
        ),
        *("repeat: {until: true}", "repeat: {max: 3}", "repeat: {until: true, max: 0}"),
        *("repeat: {until: x, max: 3}", "repeat: {until: true, max: 3, carry: x-y}"),
    ],
)
def test_wrong_constructs_do_not(construct: str) -> None:
    text = workflow(A[:-1] + f", {construct}}}")
    with pytest.raises(ValidationError):
        VALIDATOR.validate(parse(text, "w.yaml").plain())


def test_a_text_may_use_its_own_workflows_only() -> None:
    text = workflow(A.replace("chunk", "mine"))
    local = "  workflows: {mine: {stages: {b: {uses: chunk, with: {text: x}}}, outputs: '${b}'}}\n"
    VALIDATOR.validate(parse(text + local, "w.yaml").plain())
    with pytest.raises(ValidationError):
        VALIDATOR.validate(parse(text, "w.yaml").plain())


#: What can only be found by loading: names and types of what is referred to, YAML itself.
BEYOND: tuple[str, ...] = ("names no", "but input", "put into a text", "nothing uses")
BEYOND += ("wait", "expressions use")
BEYOND += ("is not an expression", "has no field", "'os'", "Error", "decorate", r"write \$")
BEYOND += ("larger than max", "a tag", "anchor", "alias", "twice", "document", "not valid YAML")
BEYOND += ("default of", "is null", "duration", "finite", "64-bit", "empty", "directive")
BEYOND += ("as a key", "must be a text", "character")


@pytest.mark.parametrize("case", [each for each in WRONG if not any(b in each[3] for b in BEYOND)])
def test_wrong_texts_do_not(case: tuple[str, int, int, str]) -> None:
    with pytest.raises(ValidationError):
        VALIDATOR.validate(parse(case[0], "w.yaml").plain())


def test_most_wrong_texts_are_covered_above() -> None:
    found = [each for each in WRONG if not any(b in each[3] for b in BEYOND)]
    assert len(found) >= 20


def test_arguments_have_bounds_and_defaults() -> None:
    def k(value: Any) -> bool:
        arguments = {"vector": "${e}", "collection": "c", "k": value}
        stage = {"uses": "retrieve", "with": arguments}
        schema = {**SCHEMA["$defs"]["stage"], "$defs": SCHEMA["$defs"]}
        return bool(Draft202012Validator(schema).is_valid(stage))

    assert k(1) and k("${inputs.k}") and not k(0) and not k("1") and not k(1001)
    uses = next(
        each["then"]["properties"]["with"]
        for each in SCHEMA["$defs"]["stage"]["allOf"]
        if each["if"]["properties"]["uses"]["const"] == "retrieve"
    )
    assert uses["properties"]["k"]["default"] == 4
    assert uses["required"] == ["vector", "collection"]


def test_the_command_prints_it_for_a_registry() -> None:
    path = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {path!r}); from adjoin.dag.schema import main; "
    done = subprocess.run(
        [sys.executable, "-c", code + "main(['dag_library:REGISTRY'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == SCHEMA


def test_the_shipped_schema_is_up_to_date() -> None:
    functions = pytest.importorskip("adjoin.functions")
    if not hasattr(functions, "BUILTINS"):
        pytest.skip("no built-in functions yet")
    shipped = importlib.resources.files("adjoin").joinpath("workflow.schema.json").read_text()
    assert shipped == render(functions.BUILTINS), (
        "run python -m adjoin.dag.schema adjoin.functions:BUILTINS > adjoin/workflow.schema.json"
    )


@pytest.mark.parametrize(
    ("kind", "bounds", "fits", "fails"),
    [
        (dt.INTEGER, Bounds(minimum=1, maximum=4), 4, 5),
        (dt.NUMBER, Bounds(minimum=0.5), 0.5, 0.25),
        (dt.STRING, Bounds(min_length=1, max_length=3), "äöü", ""),
        (dt.STRING, Bounds(enum=("plain", "formal")), "plain", "other"),
        (dt.list_of(dt.STRING), Bounds(min_length=1), ["a"], []),
        (dt.dict_of(dt.ANY), Bounds(max_length=1), {"a": 1}, {"a": 1, "b": 2}),
        (dt.union(dt.INTEGER, dt.NULL), Bounds(minimum=0), None, -1),
        (dt.union(dt.STRING, dt.INTEGER), Bounds(min_length=2, maximum=9), 9, "a"),
    ],
)
def test_the_schema_of_an_input_and_its_check_agree(
    kind: dt.DataType, bounds: Bounds, fits: Any, fails: Any
) -> None:
    parameter = Parameter("x", kind, literal(fits), bounds, "What it is")
    schema = parameter.to_json_schema()
    Draft202012Validator.check_schema(schema)
    assert (schema["description"], schema["default"]) == ("What it is", fits)
    parameter.check(fits)
    assert Draft202012Validator(schema).is_valid(fits)
    with pytest.raises(InputError):
        parameter.check(fails)
    assert not Draft202012Validator(schema).is_valid(fails)
