from __future__ import annotations

import json
import xml.etree.ElementTree
from pathlib import Path

import pytest
from stub_runtime import Cli, StubRuntime

from adjoin.cli.report import embedding_of
from adjoin.errors import YamlError
from adjoin.functions.answers import last_generators
from adjoin.loading import load_graph
from adjoin.settings import Settings


@pytest.fixture
def broken(example: Path, tmp_path: Path) -> Path:
    text = example.read_text(encoding="utf-8").replace("uses: retrieve", "usess: retrieve")
    for name in ("answer.md", "app.py"):
        (tmp_path / name).write_bytes((example.parent / name).read_bytes())
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_validate(cli: Cli, example: Path) -> None:
    code, out, err = cli("validate", example)
    assert (code, err) == (0, "")
    assert "workflow 'rag' is valid: 5 stages" in out
    found = json.loads(cli("validate", example, "--json").out)
    assert found["valid"] is True
    assert found["stages"][1]["after"] == ["vector"]
    assert found["collections"] == ["handbook"]


def test_a_wrong_key_has_a_place_and_a_suggestion(cli: Cli, broken: Path) -> None:
    for command in ("validate", "run", "graph", "explain"):
        code, out, err = cli(command, broken)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {broken}:16:7: ")
        assert "did you mean 'uses'?" in err


def test_graph_in_every_form(cli: Cli, example: Path, tmp_path: Path) -> None:
    assert cli("graph", example).out.startswith("flowchart")
    svg = tmp_path / "rag.svg"
    assert cli("graph", example, "--output", svg).code == 0
    assert xml.etree.ElementTree.parse(svg).getroot().tag.endswith("svg")
    yaml = cli("graph", example, "--format", "yaml").out
    assert "apiVersion: adjoin/v1" in yaml
    assert json.loads(cli("graph", example, "--json").out)["workflow"] == "rag"


def test_a_drawing_that_cannot_be_written(cli: Cli, example: Path, tmp_path: Path) -> None:
    code, _, err = cli("graph", example, "--output", tmp_path / "no" / "rag.svg")
    assert code == 3
    assert "cannot be written" in err


def test_explain(cli: Cli, runtime: type[StubRuntime], example: Path) -> None:
    code, out, _ = cli("explain", example)
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("passages"))
    assert row.split()[:7] == [
        "passages", "retrieve", "handbook", "worker-1", "0", "vector", "(local)",
    ]  # fmt: skip
    assert "collection 'handbook'" in row
    assert "s by vector → passages → prompt → answer → cited" in out
    assert json.loads(cli("explain", example, "--json").out)["workflow"] == "rag"
    assert "fill:#" in cli("explain", example, "--mermaid").out
    assert cli("explain", example, "--svg").out.startswith("<svg ")


def test_why_not_there(cli: Cli, runtime: type[StubRuntime], example: Path) -> None:
    code, out, _ = cli("explain", example, "--why-not", "worker-0")
    assert code == 0
    state = next(line for line in out.splitlines() if line.startswith("state"))
    assert state.split()[:2] == ["state", "0"]
    assert "every stage on worker-0 takes 2 ms longer" in out
    one = json.loads(
        cli("explain", example, "--why-not", "worker-0", "--stage", "cited", "--json").out
    )
    assert one["moved"] == ["cited"]
    assert one["difference"] == pytest.approx(one["there"]["transfer"])
    assert cli("explain", example, "--why-not", "worker-9").code == 4
    assert cli("explain", example, "--why-not", "worker-0", "--stage", "cit").code == 4
    assert cli("explain", example, "--stage", "cited").code == 3


def test_schema_is_a_json_schema_that_the_example_meets(cli: Cli) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(cli("schema").out)
    assert schema["$schema"].endswith("2020-12/schema")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert cli("schema", "--json").code == 0


def test_which_tokens_are_the_answer_and_which_model_embeds(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(
        """\
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: two}
spec:
  inputs: {q: {type: string}}
  models: {enc: {source: org/encoder}}
  stages:
    draft: {uses: generate, with: {prompt: "${inputs.q}", model: small}}
    vector: {uses: embed, with: {texts: "${draft}", model: enc}}
    found: {uses: retrieve, with: {vector: "${vector}", collection: c}}
    ask: {uses: prompt, with: {template: "{{ p }}", p: "${found}"}}
    final: {uses: generate, with: {prompt: "${ask}", model: small}}
  outputs: "${final}"
""",
        encoding="utf-8",
    )
    graph = load_graph(str(path), Settings(home=tmp_path))
    assert last_generators(graph) == {"final"}
    assert embedding_of(graph, "c") == "org/encoder"
    assert embedding_of(graph, "other") is None


def test_the_error_has_line_and_column(broken: Path, tmp_path: Path) -> None:
    with pytest.raises(YamlError) as caught:
        load_graph(str(broken), Settings(home=tmp_path))
    assert (caught.value.details["line"], caught.value.details["column"]) == (16, 7)
