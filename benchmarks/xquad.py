"""XQuAD as documents and questions with their answers, for ``adjoin eval``.

Writes each paragraph as a file below OUT/documents, and OUT/questions.jsonl with the question, its
accepted answers, and the file that has them. Any file in SQuAD's format will do.

    python -m benchmarks.xquad xquad.en.json OUT
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import NamedTuple


class Question(NamedTuple):
    text: str
    #: Key of its paragraph.
    paragraph: str
    answers: list[str]


def read(path: Path) -> tuple[dict[str, str], list[Question]]:
    """Paragraphs by a key that is a file's name, too, and the questions about them."""
    paragraphs: dict[str, str] = {}
    questions: list[Question] = []
    for number, article in enumerate(json.loads(path.read_text(encoding="utf-8"))["data"]):
        title = re.sub(r"[^A-Za-z0-9]+", "-", article.get("title", "")).strip("-")[:40]
        for at, paragraph in enumerate(article["paragraphs"]):
            key = f"{number:03}-{title}/{at:03}.txt"
            paragraphs[key] = paragraph["context"]
            for question in paragraph["qas"]:
                answers = dict.fromkeys(answer["text"] for answer in question["answers"])
                questions.append(Question(question["question"], key, list(answers)))
    return paragraphs, questions


def write(path: Path, out: Path) -> tuple[int, int]:
    """Documents and questions of a file; gives how many of each."""
    paragraphs, questions = read(path)
    for key, text in paragraphs.items():
        file = out / "documents" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="utf-8")
    with (out / "questions.jsonl").open("w", encoding="utf-8") as lines:
        for text, paragraph, answers in questions:
            line = {"question": text, "answer": answers, "relevant": paragraph}
            print(json.dumps(line, ensure_ascii=False), file=lines)
    return len(paragraphs), len(questions)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("file", type=Path, help="a file in SQuAD's format")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder, made when it is not there")
    options = parser.parse_args()
    documents, questions = write(options.file, options.out)
    print(f"{documents} documents and {questions} questions in {options.out}")


if __name__ == "__main__":
    main()
