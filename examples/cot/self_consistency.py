"""Eight samples of one prompt and a vote, and one sample to compare with, as in the YAML files.

Wang et al., 2022: Self-Consistency Improves Chain of Thought Reasoning (arXiv:2203.11171).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

import adjoin
from adjoin import functions as fn

SMALL = adjoin.ModelSpec("smollm2-135m", args={"max_model_len": 2048})
Text = Annotated[str, Meta(min_length=1, max_length=4000)]
Choices = Annotated[list[str], Meta(min_length=2, max_length=26)]


def sampled(passage: Any, question: Any, choices: Any, n: int) -> dict[str, Any]:
    """The stages that both have: a sample that names none of the choices does not vote."""
    prompt = fn.prompt(Path("question.md"), passage=passage, question=question)
    samples = fn.generate(
        prompt, model="small", n=n, temperature=0.7, top_p=0.9, seed=1, max_tokens=64, stop="\n"
    )
    named = fn.parse.options(on_error="skip")(adjoin.each(samples), into="choice", choices=choices)
    answer = fn.vote.options(when=adjoin.size(named) > 0)(named)
    return {"answer": answer, "votes": named}


@adjoin.workflow(models={"small": SMALL})
def self_consistency(passage: Text, question: Text, choices: Choices) -> dict[str, Any]:
    return sampled(passage, question, choices, n=8)


@adjoin.workflow(models={"small": SMALL})
def one_sample(passage: Text, question: Text, choices: Choices) -> dict[str, Any]:
    return sampled(passage, question, choices, n=1)
