from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import adjoin
from adjoin import Passage

EXAMPLE = Path(__file__).parents[2] / "examples" / "rag"


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    yield
    sys.modules.pop("app", None)


def test_python_and_yaml_are_one_graph() -> None:
    python, yaml = adjoin.load(EXAMPLE / "app.py"), adjoin.load(EXAMPLE / "workflow.yaml")
    assert python.version == yaml.version
    assert python == yaml


def test_citations_go_to_the_passages_that_share_words() -> None:
    adjoin.load(EXAMPLE / "app.py")
    cite = sys.modules["app"].cite
    passages = [
        Passage(id="a", text="New BSD license."),
        Passage(id="b", text="Selectolax is a fast parser for HTML, written in Cython."),
    ]
    assert cite(" Selectolax is a parser written in Cython. ", passages).endswith("Cython. [2]")
    assert cite("I do not know.", passages) == "I do not know."
    assert cite("Nothing.", []) == "Nothing."


def test_the_questions_fit_the_workflow() -> None:
    graph = adjoin.load(EXAMPLE / "workflow.yaml")
    lines = (EXAMPLE / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 3
    for line in lines:
        graph.check_inputs(json.loads(line))


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    subprocess.run([sys.executable, EXAMPLE / "documents.py", folder], check=True, timeout=50)
    return folder


def test_the_documents_are_real(collected: Path) -> None:
    msgspec = (collected / "packages" / "msgspec.md").read_text(encoding="utf-8")
    assert msgspec.startswith("# msgspec\n\nmsgspec ")
    assert "serialization" in msgspec
    assert (collected / "adjoin" / "ARCHITECTURE.md").exists()
    assert not (collected / "adjoin" / "README.md").exists()
    sizes = [file.stat().st_size for file in collected.rglob("*.md")]
    assert len(sizes) > 20
    assert max(sizes) < 60_000


@pytest.mark.models
@pytest.mark.usefixtures("fresh_home")
def test_an_answer_from_a_passage(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "selectolax.md").write_text(
        "# selectolax\n\nSelectolax is a fast HTML5 parser with CSS selectors, written in Cython.\n"
    )
    graph = adjoin.load(EXAMPLE / "workflow.yaml")
    with adjoin.Runtime() as runtime:
        runtime.collection("handbook", embedding="minilm").add_files(folder)
        result = runtime.run(graph, question="What is selectolax?")
        again = runtime.run(adjoin.load(EXAMPLE / "app.py"), question="What is selectolax?")
    assert "parser" in result["answer"]
    assert result["sources"][0].source.endswith("selectolax.md")
    assert again["answer"] == result["answer"]
