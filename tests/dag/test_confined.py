"""A value that cannot leave its process: between neighbours only, from Python and YAML alike."""

from __future__ import annotations

from typing import Any

import pytest

import adjoin
from adjoin import dag
from adjoin.errors import GraphError, YamlError


class Connection:
    pass


def connect(url: str) -> Connection:
    raise NotImplementedError


def pool(url: str) -> dict[str, Connection]:
    raise NotImplementedError


def ask(connection: Any) -> str:
    raise NotImplementedError


REGISTRY = {call.__name__: dag.builtin(call) for call in (connect, pool, ask)}
CONNECT, POOL, ASK = REGISTRY.values()
YAML = """\
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: w}
spec:
  inputs: {url: string}
  stages:
    link: {uses: connect, with: {url: "${inputs.url}"}}
    said: {uses: ask, with: {connection: "${link}"}, DEMAND}
  outputs: OUTPUT
"""


def load(demand: str, output: str = '"${said}"') -> dag.Graph:
    text = YAML.replace("DEMAND", demand).replace("OUTPUT", output)
    return dag.load_yaml(text, file="w.yaml", registry=REGISTRY)


def traced(source: dag.Function, **options: Any) -> dag.Graph:
    @adjoin.workflow
    def w(url: str) -> Any:
        link = source(url)
        return ASK.options(id="said", **options)(link)

    return w.graph


def test_it_is_refused_between_stages_that_may_be_placed_apart() -> None:
    with pytest.raises(GraphError) as caught:
        traced(CONNECT)
    text = str(caught.value)
    assert "stage 'said', argument 'connection': stage 'link' gives" in text
    assert "test_confined:Connection, but it cannot travel between processes" in text
    assert "colocate: link" in text
    with pytest.raises(GraphError, match=r"dict\[string, .*, but .*:Connection cannot travel"):
        traced(POOL)
    with pytest.raises(YamlError, match=r"w.yaml:8.*'link' gives .*Connection"):
        load("timeout: 5s")


def test_neighbours_pass_it_on() -> None:
    graph = traced(CONNECT, colocate="link")
    assert graph.version == load("colocate: link").version
    assert graph.confined == {"link"}
    assert graph.bound == dict.fromkeys(("link", "said"), frozenset({"link", "said"}))
    assert dag.from_wire(graph.to_wire(), lambda ref, _: REGISTRY[ref]).confined == {"link"}


def test_a_neighbour_of_a_neighbour_is_one() -> None:
    @adjoin.workflow
    def w(url: str) -> Any:
        link = CONNECT.options(id="link")(url)
        first = ASK.options(id="first", colocate="link")(link)
        second = ASK.options(id="second", colocate="first")(link)
        return {"first": first, "second": second}

    assert w.graph.bound["link"] == {"link", "first", "second"}


def test_an_output_is_refused_whatever_is_declared() -> None:
    with pytest.raises(YamlError, match=r"output .*'link' gives .*an output goes to the caller"):
        load("colocate: link", output='{said: "${said}", link: "${link}"}')


def test_ordinary_workflows_bind_nothing() -> None:
    @adjoin.workflow
    def w(url: str) -> Any:
        return ASK(ASK(url))

    assert not w.graph.confined and not w.graph.bound
