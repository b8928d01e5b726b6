from __future__ import annotations

from typing import Any

import pytest

import adjoin
from adjoin import functions as fn
from adjoin.dag import Graph
from adjoin.errors import InputError
from adjoin.evaluation.metrics import parse_metric
from adjoin.evaluation.outputs import Chosen, choose_outputs

METRICS = [parse_metric("exact"), parse_metric("recall@1")]


@adjoin.function
def guess(text: str) -> Any:
    return text


@adjoin.workflow
def rag(question: str):  # type: ignore[no-untyped-def]
    passages = fn.retrieve(fn.embed(question, model="e"), collection="c")
    return {"said": fn.generate(question, model="m"), "found": passages}


@adjoin.workflow
def voting(question: str):  # type: ignore[no-untyped-def]
    samples = fn.generate(question, model="m", n=3)
    return {"samples": samples, "best": fn.vote(samples)}


@adjoin.workflow
def bare(question: str):  # type: ignore[no-untyped-def]
    return fn.generate(question, model="m")


@adjoin.workflow
def guessing(question: str):  # type: ignore[no-untyped-def]
    samples = fn.generate(question, model="m", n=3)
    return {"samples": samples, "guess": guess(question)}


@adjoin.workflow
def skipping(question: str, really: bool = True):  # type: ignore[no-untyped-def]
    return {"answer": fn.generate(question, model="m", when=really)}


@pytest.mark.parametrize(
    ("graph", "answer"),
    [
        (rag.graph, "said"),
        (voting.graph, "best"),
        (bare.graph, "output"),
        (guessing.graph, "guess"),
    ],
)
def test_the_only_output_of_a_kind(graph: Graph, answer: str) -> None:
    assert choose_outputs(graph, METRICS[:1], None, None).answer == answer


def test_passages_are_looked_for_when_a_metric_needs_them() -> None:
    assert choose_outputs(rag.graph, METRICS, None, None) == Chosen("said", "found")
    assert choose_outputs(rag.graph, METRICS[1:], None, None) == Chosen("", "found")
    with pytest.raises(InputError, match="no output is known to be the passages; name it"):
        choose_outputs(voting.graph, METRICS, None, None)


def test_an_output_by_its_name() -> None:
    assert choose_outputs(voting.graph, METRICS[:1], "samples", None).answer == "samples"
    with pytest.raises(InputError, match="no output 'sample'; did you mean 'samples'"):
        choose_outputs(voting.graph, METRICS[:1], "sample", None)
