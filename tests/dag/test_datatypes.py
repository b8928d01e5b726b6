from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from adjoin.dag import Template, assignable, to_json_schema
from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import from_annotation, is_writable, parse_type, type_of
from adjoin.errors import DefinitionError
from adjoin.types import Message, Passage, Vector


@dataclass
class Tree:
    label: str
    children: list[Tree]


class Leaf(Tree):
    pass


class Model(BaseModel):
    x: int


class Record(TypedDict):
    y: float


class Point(msgspec.Struct):
    x: int


class Opaque:
    pass


Name = NewType("Name", str)

leaves = st.sampled_from(
    [
        *(dt.STRING, dt.INTEGER, dt.NUMBER, dt.BOOLEAN, dt.BYTES, dt.NULL, dt.ANY, dt.VECTOR),
        *(from_annotation(Passage), from_annotation(Message)),
    ]
)
types = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(dt.list_of),
        inner.map(dt.dict_of),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: dt.union(*each)),
    ),
    max_leaves=6,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (str, "string"),
        (Name, "string"),
        (Any, "any"),
        (None, "null"),
        (float, "number"),
        (bytes, "bytes"),
        (list, "list[any]"),
        (list[int], "list[integer]"),
        (Sequence[str], "list[string]"),
        (tuple[int, ...], "list[integer]"),
        (tuple[int, str], "list[integer | string]"),
        (dict, "dict[string, any]"),
        (Mapping[str, bool], "dict[string, boolean]"),
        (dict[int, str], "dict[integer, string]"),
        (Optional[int], "integer | null"),  # noqa: UP045 - the old spelling counts too
        (int | None, "integer | null"),
        (str | list[Message], "list[Message] | string"),
        (str | Any, "any"),
        (Annotated[int, msgspec.Meta(ge=1)], "integer"),
        (Literal["a", 1], "integer | string"),
        (Vector, "Vector"),
        (npt.NDArray[np.int64], "array[int64]"),
        (np.ndarray, "array[any]"),
        (Template, "template"),
        (Passage, "Passage"),
        (Tree, f"{__name__}:Tree"),
        (Model, f"{__name__}:Model"),
        (Record, f"{__name__}:Record"),
        (Opaque, f"{__name__}:Opaque"),
    ],
)
def test_annotations_have_types(annotation: Any, text: str) -> None:
    assert str(from_annotation(annotation)) == text


def test_streams_are_refused() -> None:
    with pytest.raises(DefinitionError, match="use a list"):
        from_annotation(Iterator[str])


@pytest.mark.parametrize("cls", [Tree, Model, Record, Point])
def test_fields_of_structures_are_known(cls: type) -> None:
    found = from_annotation(cls)
    assert found.fields is not None
    name, kind = found.fields[0]
    assert dt.step(found, name) == kind
    with pytest.raises(dt.NoSuchStep, match="no field 'z'"):
        dt.step(found, "z")


def test_a_structure_may_contain_itself() -> None:
    children = dt.step(from_annotation(Tree), "children")
    assert dt.step(dt.step(children, 0), "anything") == dt.ANY


def test_an_opaque_class_has_unknown_parts() -> None:
    assert dt.step(from_annotation(Opaque), "anything") == dt.ANY


def test_enums_go_by_name() -> None:
    colour = enum.Enum("colour", "red")
    assert from_annotation(colour).kind == "struct"


@pytest.mark.parametrize(
    ("source", "target", "fits"),
    [
        (int, float, True),
        (float, int, False),
        (bool, int, False),
        (str, str | None, True),
        (str | None, str, False),
        (list[int], list[float], True),
        (list[str], list[int], False),
        (dict[str, int], dict[str, Any], True),
        (list[Any], list[Passage], True),
        (Passage, Message, False),
        (Leaf, Tree, True),
        (Tree, Leaf, False),
        (Vector, np.ndarray, True),
        (Vector, npt.NDArray[np.int64], False),
        (int | str, str | float, True),
        (str, list[str], False),
        (list[str], str | list[str], True),
    ],
)
def test_assignability(source: Any, target: Any, fits: bool) -> None:
    assert assignable(from_annotation(source), from_annotation(target)) is fits


def test_an_empty_list_fits_every_list() -> None:
    assert assignable(type_of([]), dt.list_of(dt.STRING))
    assert not assignable(type_of([]), dt.STRING)


@given(types, types)
def test_assignability_is_reflexive_and_unions_take_their_members(
    one: dt.DataType, two: dt.DataType
) -> None:
    assert assignable(one, one)
    assert assignable(one, dt.union(one, two))
    assert dt.union(one, two) == dt.union(two, one)
    assert dt.union(one, dt.union(two, one)) == dt.union(one, two)


@given(types)
def test_written_names_read_back(kind: dt.DataType) -> None:
    assert parse_type(str(kind)) == kind
    assert is_writable(kind)


@pytest.mark.parametrize(
    "text", ["", "strng", "list[", "list[string", "list[string]]", "dict[string]", "a b", "|", "["]
)
def test_other_texts_are_no_types(text: str) -> None:
    with pytest.raises(DefinitionError, match="is not a type"):
        parse_type(text)


@given(plain)
def test_a_plain_value_keeps_to_the_schema_of_its_type(value: Any) -> None:
    schema = to_json_schema(type_of(value))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(value)


@given(types)
def test_each_type_has_a_valid_schema(kind: dt.DataType) -> None:
    Draft202012Validator.check_schema(to_json_schema(kind))
