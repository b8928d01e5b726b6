"""The converter, as a command; its data go into ``adjoin eval``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import adjoin
from adjoin.evaluation.metrics import parse_metric
from adjoin.evaluation.questions import Needed, read_questions
from adjoin.types import Passage

ROOT = Path(__file__).parents[2]
SQUAD = {
    "data": [
        {
            "title": "The_Mill",
            "paragraphs": [
                {
                    "context": "Anna Berg built the mill.",
                    "qas": [
                        {
                            "question": "Who built it?",
                            "answers": [{"text": "Anna Berg"}, {"text": "Anna Berg"}],
                        }
                    ],
                },
                {"context": "It stands at the river.", "qas": []},
            ],
        }
    ]
}


def test_documents_and_questions_that_point_to_them(tmp_path: Path) -> None:
    file, out = tmp_path / "squad.json", tmp_path / "out"
    file.write_text(json.dumps(SQUAD), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.xquad", str(file), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.stdout == f"2 documents and 1 questions in {out}\n", done.stderr
    graph = adjoin.load(ROOT / "examples" / "rag" / "workflow.yaml")
    sys.modules.pop("app", None)
    metrics = [parse_metric("contains"), parse_metric("recall@1")]
    text = (out / "questions.jsonl").read_text(encoding="utf-8")
    (question,) = read_questions(text, "q", Needed([(graph, {})], metrics))
    assert question.answers == ("Anna Berg",)
    files = sorted((out / "documents").rglob("*.txt"))
    relevant = [
        metrics[1].of_passages([Passage(id="x", text="", source=str(each))], question.relevant)
        for each in files
    ]
    assert relevant == [1.0, 0.0]
    assert files[0].read_text(encoding="utf-8") == "Anna Berg built the mill.\n"
