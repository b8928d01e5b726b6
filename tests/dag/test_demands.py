"""What stages demand of their workers: the same from Python and YAML, and part of the version."""

from __future__ import annotations

import pytest

import adjoin
from adjoin.dag import Graph
from adjoin.dag.demands import names_of, resources_of
from adjoin.errors import DefinitionError, YamlError
from adjoin.functions import BUILTINS

YAML = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: demanding}
spec:
  inputs: {text: string}
  stages:
    parts: {uses: chunk, with: {text: "${inputs.text}"}}
    chosen:
      uses: vote
      with: {answers: "${parts}"}
      DEMAND
  outputs: "${chosen}"
"""


def load(demand: str) -> Graph:
    return Graph.from_yaml(YAML.replace("DEMAND", demand), registry=BUILTINS)


def traced(**options: object) -> Graph:
    from adjoin import functions as fn

    @adjoin.workflow
    def demanding(text: str):  # type: ignore[no-untyped-def]
        parts = fn.chunk(text)
        return fn.vote.options(id="chosen", **options)(parts)  # type: ignore[arg-type]

    return demanding.graph


@pytest.mark.parametrize(
    ("yaml", "options"),
    [
        ('resources: {memory: "2GB", cuda: 1}', {"resources": {"cuda": 1, "memory": 2e9}}),
        ("colocate: parts", {"colocate": ["parts"]}),
        ("avoid: [worker-1, parts]", {"avoid": ("parts", "worker-1")}),
    ],
)
def test_python_and_yaml_agree(yaml: str, options: dict[str, object]) -> None:
    written, called = load(yaml), traced(**options)
    assert written.version == called.version
    assert written.version != traced().version
    assert Graph.from_yaml(called.to_yaml(), registry=BUILTINS) == called


def test_nothing_demanded_is_nothing_hashed() -> None:
    assert b"colocate" not in traced().to_wire()
    assert traced(colocate=[], resources={}).version == traced().version


@pytest.mark.parametrize(
    ("demand", "message"),
    [
        ("colocate: [prts]", "colocate names no stage 'prts'"),
        ("avoid: [chosen]", "avoid names the stage itself"),
        ("resources: {memory: much}", "'much' is no amount of 'memory'"),
        ("resources: {cuda: 0}", "'0' is no amount of 'cuda'"),
        ("resources: [cuda]", "resources must be a mapping"),
        ("colocate: 3", "colocate must be a name or a list of names"),
    ],
)
def test_what_is_wrong_has_line_and_column(demand: str, message: str) -> None:
    with pytest.raises(YamlError, match="12:") as refused:
        load(demand)
    assert message in str(refused.value)


def test_functions_demand_for_all_their_stages() -> None:
    @adjoin.function(resources={"memory": "1GiB"}, avoid="slow")
    def heavy(x: int) -> int:
        return x

    @adjoin.workflow
    def use(n: int):  # type: ignore[no-untyped-def]
        first = heavy(n)
        return heavy.options(resources={"threads": 2})(first)

    first, second = use.graph.stages
    assert first.policy.resources == {"memory": 2**30}
    assert second.policy.resources == {"threads": 2.0}
    assert first.policy.avoid == second.policy.avoid == ("slow",)


@pytest.mark.parametrize("value", [{"": 1}, {"a": True}, {"a": float("nan")}, {"a": -1}, {1: 1}])
def test_amounts_are_bounded(value: object) -> None:
    with pytest.raises(DefinitionError):
        resources_of(value)


def test_names_are_put_in_order_once() -> None:
    assert names_of(["b", "a", "b"], "avoid") == ("a", "b")
    with pytest.raises(DefinitionError):
        names_of({"a": 1}, "avoid")
