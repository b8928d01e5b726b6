from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_context import call

from adjoin import functions as fn
from adjoin.errors import DefinitionError, FunctionError, InputError
from adjoin.functions.builtin.parsing import parse_choice, parse_json, parse_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", 42),
        ("3 apples and 4 pears make 7 fruits", 7),
        ("it costs $1,234.50 in all", 1234.5),
        ("1,000,000", 1_000_000),
        ("1, 2, 3", 3),
        ("1,23", 23),
        ("3/4", 0.75),
        ("1 1/2 cups", 1.5),
        ("6 / 3", 2),
        ("on 12/05/2020", 2020),
        ("about 50%", 50),
        ("10-5", 5),
        ("7 - 3", 3),
        ("x = -5", -5),
        ("x = \N{MINUS SIGN}5", -5),
        ("$-5", -5),
        ("-$5.25", -5.25),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5kg of H2O", 5),
        ("version 1.2.3", 1.2),
        ("7, since 5/0 is undefined, not 4/0", 7),
    ],
)
def test_the_last_number(text: str, number: float) -> None:
    found = call(fn.parse, text, into="number")
    assert found == pytest.approx(number)
    assert isinstance(found, type(number))


@given(st.integers(-(10**12), 10**12), st.text("abc .,:\n", max_size=20))
def test_an_integer_is_read_back_with_or_without_separators(number: int, before: str) -> None:
    for shown in (str(number), f"{number:,}"):
        assert parse_number(f"{before} {shown}.") == number


@given(st.floats(-1e9, 1e9).map(lambda number: round(number, 4)))
def test_a_decimal_is_read_back(number: float) -> None:
    assert parse_number(f"so it is {number:.4f}") == pytest.approx(number)


@given(st.text(max_size=200))
def test_any_text_gives_a_number_or_a_function_error(text: str) -> None:
    try:
        assert isinstance(parse_number(text), int | float)
    except FunctionError as error:
        assert error.hint


@pytest.mark.parametrize("text", ["", "none", "H2O", "five", "9" * 400])
def test_no_number(text: str) -> None:
    with pytest.raises(FunctionError, match="no number"):
        parse_number(text)


@pytest.mark.parametrize(
    ("text", "choices", "choice"),
    [
        ("Yes, of course", ["yes", "no"], "yes"),
        ("No. Well, yes", ["yes", "no"], "yes"),
        ("The answer is no. I said yes before", ["yes", "no"], "no"),
        ("the answer is: **Blue**, not red", ["red", "blue"], "blue"),
        ("Answer: (B) because A is wrong", ["A", "B"], "B"),
        ("a cat is B", ["A", "B"], "B"),
        ("New York", ["York", "New York"], "New York"),
        ("new\n york", ["New York"], "New York"),
        ("New York", ["new", "New York"], "New York"),
        ("nothing known: knowing", ["no", "known"], "known"),
        ("c++ it is", ["C", "C++"], "C++"),
    ],
)
def test_the_choice(text: str, choices: list[str], choice: str) -> None:
    assert call(fn.parse, text, into="choice", choices=choices) == choice


@given(st.lists(st.text("abcdefgh ", min_size=2).map(str.strip).filter(lambda t: len(t) > 1)))
def test_a_choice_alone_is_found_in_any_case(choices: list[str]) -> None:
    for choice in choices:
        assert parse_choice(choice.upper(), choices).split() == choice.split()


def test_no_choice_and_what_is_only_a_part_of_a_word() -> None:
    with pytest.raises(FunctionError, match="none of 'yes', 'no'"):
        parse_choice("I do not know", ["yes", "no"])


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    "text",
    [
        '{"city": "Paris"}',
        ' \n{"city": "Paris"} ',
        'Sure!\n```json\n{"city": "Paris"}\n```\nAnything else?',
        'It is {"city": "Paris"}, I think.',
        'see [1] and {"town": "x"}: {"city": "Paris"}',
    ],
)
def test_json_that_fits_the_schema_is_found(text: str) -> None:
    assert call(fn.parse, text, into="json", schema=CITY) == {"city": "Paris"}


_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), _values), st.text("abc ,.:\n`", max_size=20))
def test_an_object_is_read_back_from_within_a_text(value: Any, around: str) -> None:
    assert parse_json(f"{around} {json.dumps(value)} {around}") == value


@given(st.text('{}[]",:1 \n`', max_size=60))
def test_any_text_gives_json_or_a_function_error(text: str) -> None:
    try:
        parse_json(text)
    except FunctionError as error:
        assert "no JSON" in error.message


def test_json_that_does_not_fit_says_why() -> None:
    for text in ('{"town": 1}', 'so: {"town": {"city": "Paris"}}'):
        with pytest.raises(FunctionError, match="'city' is a required property"):
            parse_json(text, CITY)


@pytest.mark.parametrize("text", ["NaN", '{"a": Infinity}', "[" * 100_000, '{"a": 1'])
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(FunctionError, match="no JSON"):
        parse_json(text)


def test_arguments_that_make_no_sense() -> None:
    for arguments in (
        {"into": "word"},
        {"into": "choice"},
        {"into": "number", "choices": ["a"]},
        {"into": "number", "schema": {}},
    ):
        with pytest.raises(InputError):
            call(fn.parse, "1", **arguments)
    with pytest.raises(DefinitionError, match="schema is wrong"):
        call(fn.parse, "1", into="json", schema={"type": "word"})
