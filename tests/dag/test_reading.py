"""Which values are read while they are being made, and which stages wait for their readers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import adjoin
from adjoin import GraphError, function, workflow
from adjoin import functions as fn
from adjoin.dag import Graph


@function
def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@function
def doubled(values: Iterator[int]) -> Iterator[int]:
    return (2 * value for value in values)


@function
async def halved(values: AsyncIterator[int]) -> AsyncIterator[int]:
    async for value in values:
        yield value // 2


@function
def total(values: list[int]) -> int:
    return sum(values)


@function
def both(values: Iterator[int], more: Iterator[int]) -> int:
    return sum(values) + sum(more)


@function
def words(pieces: Iterator[str]) -> Iterator[str]:
    yield from pieces


@function
def text() -> str:
    return "a text"


def graph_of(call: Any) -> Graph:
    found: Graph = workflow(call).graph
    return found


def test_an_iterator_is_a_list_that_is_read_or_made_piece_by_piece() -> None:
    assert str(doubled.parameters[0].type) == str(doubled.returns) == "list[integer]"
    assert doubled.iterates == {"values"}
    assert doubled.streams == halved.streams == numbers.streams == "items"
    assert total.iterates == frozenset() and total.streams == ""


def test_who_takes_an_iterator_reads_what_is_yielded() -> None:
    def chain(n: int) -> Any:
        made = numbers(n)
        twice = doubled(made)
        return total(halved(twice))

    graph = graph_of(chain)
    assert graph.readers == {"made": {"twice"}, "twice": {"halved"}}
    assert graph.passing == {"made", "twice"}
    assert not graph.reads("total", "halved"), "it takes a list"


def test_whose_value_others_need_as_a_whole_does_not_wait_for_a_reader() -> None:
    def shared(n: int) -> Any:
        made = numbers(n)
        return {"sum": total(made), "twice": doubled(made)}

    def is_output(n: int) -> Any:
        made = numbers(n)
        return {"made": made, "twice": doubled(made)}

    def two_ways(n: int) -> Any:
        made = numbers(n)
        twice = doubled(made)
        return both(made, twice)

    assert graph_of(shared).passing == graph_of(is_output).passing == frozenset()
    graph = graph_of(two_ways)
    assert graph.readers == {"made": {"twice", "both"}, "twice": {"both"}}
    assert graph.passing == {"twice"}


def test_fan_outs_loops_and_parts_see_whole_values() -> None:
    def fanned_out(n: int) -> Any:
        made = numbers(n)
        return numbers(adjoin.each(made))

    def part(n: int) -> Any:
        made = numbers(n)
        return numbers(made[0])

    def looped(n: int) -> Any:
        made = numbers(n)
        until = adjoin.until(lambda result: adjoin.size(result) > 3, carry="values", max=2)
        return doubled.options(repeat=until)(made)

    assert graph_of(fanned_out).readers == graph_of(part).readers == graph_of(looped).readers == {}


def test_a_text_is_read_as_the_pieces_that_make_it_up() -> None:
    def talk(question: str) -> Any:
        answer = fn.generate(question, model="small")
        return {"answer": answer, "words": words(answer)}

    def plain() -> Any:
        return words(text())

    def samples(question: str) -> Any:
        return words(fn.generate(question, model="small", n=3))

    assert graph_of(talk).readers == {"answer": {"words"}}
    assert graph_of(talk).passing == frozenset(), "an engine does not wait"
    assert graph_of(plain).readers == {}
    assert graph_of(samples).readers == {}, "samples are a list of whole texts"


def test_what_is_no_list_and_no_text_does_not_fit() -> None:
    def wrong(n: int) -> Any:
        return doubled(total(numbers(n)))

    def pieces_of_numbers(question: str) -> Any:
        return doubled(fn.generate(question, model="small"))

    for call in (wrong, pieces_of_numbers):
        with pytest.raises(GraphError, match=r"'doubled' takes list\[integer\], but stage"):
            graph_of(call)
