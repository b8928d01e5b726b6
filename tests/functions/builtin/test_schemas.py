from __future__ import annotations

from typing import Any

import pytest

from adjoin.dag import datatypes as dt
from adjoin.errors import DefinitionError
from adjoin.functions.builtin import schemas

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "size": {"$ref": "#/$defs/size"}},
    "required": ["city"],
    "$defs": {"size": {"enum": ["small", "large"]}},
}


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        found = {"type": "array", "items": found}
    return found


def test_a_schema_that_refers_to_its_own_parts_is_one() -> None:
    schemas.check(CITY)
    schemas.check(nested(16))
    assert schemas.misfit({"city": "x", "size": "small"}, CITY) == ""
    assert schemas.misfit({"city": "x", "size": "huge"}, CITY).startswith("['size']: 'huge'")
    assert "'city' is a required" in schemas.misfit({}, CITY)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("string", "is a str"),
        ({"type": "word"}, "wrong at type"),
        ({"properties": {"a": {"minimum": "x"}}}, "wrong at properties/a/minimum"),
        ({"$ref": "https://example.org/schema"}, "refers to 'https://example.org/schema'"),
        ({"items": [{"$ref": "file:///etc/passwd"}]}, "refers to"),
        ({"$dynamicRef": "other.json"}, "refers to"),
        (nested(40), "nested more than"),
        ({"pattern": "(?=a)b"}, "pattern .* cannot be used"),
        ({"items": {"pattern": "(a"}}, "pattern .* cannot be used at items"),
        ({"patternProperties": {"^a": {}}}, "patternProperties is not available"),
        ({"enum": ["x" * 70_000]}, "larger than"),
        ({"const": float("nan")}, "not plain JSON"),
        ({"const": object()}, "not plain JSON"),
    ],
)
def test_what_is_refused_and_why(schema: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        schemas.check(schema)


def test_a_property_may_have_any_name() -> None:
    schemas.check({"properties": {"pattern": {"type": "string"}, "$ref": {"type": "string"}}})


def test_a_pattern_takes_no_more_than_linear_time() -> None:
    schema = {"type": "string", "pattern": "^(a+)+$"}
    schemas.check(schema)
    assert schemas.misfit("aaa", schema) == ""
    assert "does not match" in schemas.misfit("a" * 50_000 + "b", schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {
            "$ref": "#/$defs/d0",
            "$defs": {f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(40)}
            | {"d40": {}},
        },
    ],
)
def test_references_that_multiply_or_never_end_are_cut_off(schema: dict[str, Any]) -> None:
    schemas.check(schema)
    assert "too long" in schemas.misfit({}, schema)
    assert "too long" in schemas.misfit({}, schema)  # the budget is each validation's own


def test_a_schema_may_refer_to_itself() -> None:
    tree = {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#"}}},
        "additionalProperties": False,
    }
    assert schemas.misfit({"children": [{"children": []}, {}]}, tree) == ""
    assert schemas.misfit({"children": [{"child": 1}]}, tree).startswith("['children'][0]")


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, dt.STRING),
        ({"type": "object"}, dt.dict_of(dt.ANY)),
        ({"type": "array", "items": {"type": "integer"}}, dt.list_of(dt.INTEGER)),
        ({"enum": ["a", 1]}, dt.union(dt.STRING, dt.INTEGER)),
        ({"const": True}, dt.BOOLEAN),
        ({"type": ["number", "null"]}, dt.union(dt.NUMBER, dt.NULL)),
        ({"$ref": "#/$defs/T", "$defs": {"T": {"type": "object"}}}, dt.dict_of(dt.ANY)),
        ({"anyOf": [{"type": "string"}]}, dt.ANY),
        ({}, dt.ANY),
    ],
)
def test_the_type_that_edges_carry(schema: dict[str, Any], kind: dt.DataType) -> None:
    assert schemas.data_type(schema) == kind
