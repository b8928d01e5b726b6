from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import random_graphs
from control_library import ANSWER, SEARCH, WEB, WORDS, step
from dag_library import EMBED
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph import chain, graph, graphs, stage
from test_trace import make_rag

import adjoin
from adjoin import dag
from adjoin import functions as fn
from adjoin.dag import Literal, Reference
from adjoin.dag.layout import MAX_BENDS, arrange

SVG = "{http://www.w3.org/2000/svg}"
#: A model's name is any text, so that it must not become markup.
HOSTILE = "</text><script>alert(1)</script>\"'`]|\n\x01"


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_picture_shows_stages_functions_models_and_types(tmp_path: Path) -> None:
    rag = make_rag(tmp_path)
    shown = texts(rag.graph.to_svg())
    for text in ("question", "string", "answer", "generate · small", "retrieve · handbook"):
        assert text in shown
    assert {"list[Passage]", "Vector", "sources"} <= set(shown)
    assert rag.graph.to_svg() in rag._repr_html_()


def test_the_flowchart_shows_the_same(tmp_path: Path) -> None:
    lines = make_rag(tmp_path).graph.to_mermaid().splitlines()
    assert lines[0] == "flowchart TD"
    assert '    stage_answer["answer<br/>generate · small"]' in lines
    assert '    stage_passages -->|"list[Passage]"| stage_cite' in lines
    assert '    input_question(["question<br/>string"])' in lines
    assert "    input_question --> stage_embed" in lines


def test_names_do_not_become_markup() -> None:
    built = graph(stage("a", EMBED, texts=Literal("x"), model=Literal(HOSTILE)))
    svg, flowchart = built.to_svg(), built.to_mermaid()
    assert "<script>" not in svg and any("<script>" in text for text in texts(svg))
    box = next(line for line in flowchart.splitlines() if line.startswith("    stage_a["))
    assert re.fullmatch(r'    stage_a\["a<br/>[^"<>`]*"\]', box)


LINE = re.compile(
    r" +(\w+( -\.?->.* \w+|\[.*\]|\(\[.*\]\))|subgraph \w+\[.*\]|end|style \w+ [\w: -]+)"
)


@settings(max_examples=60, deadline=None)
@given(graphs() | random_graphs.graphs())
def test_every_graph_has_a_well_formed_picture(built: dag.Graph) -> None:
    assert len(texts(built.to_svg())) >= len(built.stages)
    lines = built.to_mermaid().splitlines()[1:]
    assert all(LINE.fullmatch(line) for line in lines)
    keys = [found[1] for line in lines if (found := re.match(r" +(?:subgraph )?(\w+)[\[(]", line))]
    assert len(keys) == len(set(keys))


def test_the_picture_shows_conditions_fan_outs_and_loops() -> None:
    @dag.workflow
    def shown(q: str) -> Any:
        found = SEARCH(q)
        more = WEB.options(when=found[0].score < 0.4)(q)
        answers = ANSWER(adjoin.each(WORDS(q)), passages=more)
        samples = WORDS.options(each=8)(q)
        loop = adjoin.until(lambda result: result.done, max=5)
        return [answers, samples, step.options(repeat=loop)(q), step(q)]

    notes = {
        "if found[0].score < 0.4",
        "\N{MULTIPLICATION SIGN} each item of words",
        "\N{MULTIPLICATION SIGN} 8",
        "\u21bb until result.done, at most 5",
    }
    svg, flowchart = shown.graph.to_svg(), shown.graph.to_mermaid()
    assert notes < set(texts(svg))
    assert "stage_found -.->" in flowchart and "style stage_more stroke-dasharray" in flowchart
    # the workflow within is shown once
    assert texts(svg).count("thoughts") == 3 and flowchart.count("subgraph") == 1
    assert "    subgraph stage_step[" in flowchart and "        n1_stage_thoughts[" in flowchart
    assert '    stage_step_2[["step_2<br/>step"]]' in flowchart


def test_a_box_is_as_high_as_the_workflow_in_it() -> None:
    found = arrange(
        dict.fromkeys("abc", 50.0), list(pairwise("abc")), row=90, gap=20, extra={"b": 200.0}
    )
    assert [found.centres[box][1] for box in "abc"] == [45, 90 + 145, 90 + 290 + 45]
    assert found.height == 3 * 90 + 200


def test_an_arrow_goes_straight_past_a_high_box() -> None:
    arrows = [("a", "b"), ("b", "c"), ("a", "c")]
    found = arrange(dict.fromkeys("abc", 50.0), arrows, row=90, gap=20, extra={"b": 200.0})
    _, above, below, _ = found.routes["a", "c"]
    assert above[0] == below[0]
    assert (above[1], below[1]) == (135, 335)


def test_a_list_of_anything_is_called_a_list() -> None:
    @dag.workflow
    def chosen(q: str) -> Any:
        return fn.select(WORDS(q), [1.0])

    assert '-->|"list"| output' in chosen.graph.to_mermaid()


@pytest.mark.parametrize("wide", [False, True])
def test_large_graphs_are_drawn_quickly(wide: bool) -> None:
    stages = chain(300)
    outputs = {f"o{i}": Reference(f"s{i}") for i in range(300 if wide else 0)}
    built = graph(*stages, outputs=outputs or {"out": Reference("s299")})
    started = time.perf_counter()
    ElementTree.fromstring(built.to_svg())
    assert time.perf_counter() - started < 5


# --- layout -----------------------------------------------------------------------------------


@st.composite
def diagrams(draw: st.DrawFn) -> tuple[dict[str, float], list[tuple[str, str]]]:
    count = draw(st.integers(1, 12))
    widths = {f"b{i}": draw(st.floats(10, 200)) for i in range(count)}
    pairs = [(f"b{i}", f"b{j}") for j in range(count) for i in range(j)]
    return widths, draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []


@given(diagrams())
def test_boxes_keep_apart_and_arrows_go_down(
    case: tuple[dict[str, float], list[tuple[str, str]]],
) -> None:
    widths, arrows = case
    found = arrange(widths, arrows, row=90, gap=20)
    rows: dict[float, list[str]] = {}
    for box, (x, y) in found.centres.items():
        rows.setdefault(y, []).append(box)
        assert x - widths[box] / 2 >= -0.01 and x + widths[box] / 2 <= found.width + 0.01
        assert 0 <= y <= found.height
    for row in rows.values():
        row.sort(key=lambda box: found.centres[box][0])
        for one, two in pairwise(row):
            between = found.centres[two][0] - found.centres[one][0]
            assert between >= (widths[one] + widths[two]) / 2 + 20 - 0.01
    for pair in arrows:
        route = found.routes[pair]
        assert route[0] == found.centres[pair[0]] and route[-1] == found.centres[pair[1]]
        assert all(y + 90 <= to_y + 0.01 for (_, y), (_, to_y) in pairwise(route))


def test_a_chain_is_straight() -> None:
    found = arrange(dict.fromkeys("abcd", 50.0), list(pairwise("abcd")), row=90, gap=20)
    assert {round(x, 6) for x, _ in found.centres.values()} == {25.0}


def test_arrows_that_need_not_cross_do_not() -> None:
    arrows = [("a", "d"), ("b", "c")]
    found = arrange(dict.fromkeys("abcd", 50.0), arrows, row=90, gap=20).centres
    assert (found["a"][0] < found["b"][0]) == (found["d"][0] < found["c"][0])


def test_an_input_sits_above_its_taker_and_sinks_are_last() -> None:
    arrows = [("a", "b"), ("b", "c"), ("k", "c"), ("a", "out")]
    widths = dict.fromkeys(("a", "k", "b", "c", "out"), 50.0)
    found = arrange(widths, arrows, row=90, gap=20, sinks=["out"]).centres
    assert found["k"][1] == found["b"][1]
    assert found["out"][1] == found["c"][1] == max(y for _, y in found.values())


def test_too_many_bends_are_left_out() -> None:
    names = [f"b{i}" for i in range(100)]
    arrows: list[Any] = [(one, two) for j, two in enumerate(names) for one in names[:j]]
    found = arrange(dict.fromkeys(names, 10.0), arrows, row=90, gap=20)
    assert sum(len(route) - 2 for route in found.routes.values()) == 0
    assert sum(j - i - 1 for i in range(100) for j in range(i + 1, 100)) > MAX_BENDS
