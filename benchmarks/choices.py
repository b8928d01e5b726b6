"""Reading questions with four answers to choose from, made of a file in SQuAD's format.

Each line has a passage, a question on it, four choices and the answer: the one that the file gives,
and three that it gives to other questions of the same article. No choice is part of another. The
choices of a question and their order depend on the seed and its article alone. The parts have no
passage in common: ``development`` is for writing prompts, ``held-out`` for measuring.

    python -m benchmarks.choices xquad.en.json held-out.jsonl [--part development] [--count 200]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CHOICES = 4
PARTS = ("development", "held-out")
#: Of five passages of an article one is for development.
_EVERY = 5
_MAX_CHARACTERS = 60


def questions(articles: Sequence[dict[str, Any]], part: str, seed: int) -> Iterator[dict[str, Any]]:
    """The questions of a part, in the order of the file."""
    for article in articles:
        known = [
            answer
            for paragraph in article["paragraphs"]
            for found in paragraph["qas"]
            if (answer := _answer(found))
        ]
        for at, paragraph in enumerate(article["paragraphs"]):
            if (at % _EVERY == 0) != (part == "development"):
                continue
            for found in paragraph["qas"]:
                answer = _answer(found)
                choices = _choices(answer, known, random.Random(f"{seed} {found['id']}"))
                if len(choices) == CHOICES:
                    yield {
                        "passage": paragraph["context"],
                        "question": found["question"].strip(),
                        "choices": choices,
                        "answer": answer,
                    }


def spread(found: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """So many of them, taken evenly from all of the file."""
    count = min(count, len(found))
    return [found[at * len(found) // count] for at in range(count)]


def _answer(found: dict[str, Any]) -> str:
    """The answer, if it is short enough for a choice."""
    text = " ".join(found["answers"][0]["text"].split())
    return text if len(text) <= _MAX_CHARACTERS else ""


def _choices(answer: str, known: Sequence[str], rng: random.Random) -> list[str]:
    choices = [answer] if answer else []
    for other in rng.sample(known, len(known)):
        if len(choices) in (0, CHOICES):
            break
        if not any(_alike(other, choice) for choice in choices):
            choices.append(other)
    rng.shuffle(choices)
    return choices


def _alike(one: str, other: str) -> bool:
    first, second = one.casefold(), other.casefold()
    return first in second or second in first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="a file in SQuAD's format, such as xquad.en.json")
    parser.add_argument("output", type=Path)
    parser.add_argument("--part", choices=PARTS, default="held-out")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    articles = json.loads(options.data.read_text(encoding="utf-8"))["data"]
    found = spread(list(questions(articles, options.part, options.seed)), options.count)
    lines = (json.dumps(each, ensure_ascii=False) + "\n" for each in found)
    options.output.write_text("".join(lines), encoding="utf-8")
    print(f"{len(found)} questions in {options.output}")


if __name__ == "__main__":
    main()
