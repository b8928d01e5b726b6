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
        ({"enum": ["x" * 70_000]}, "larger than"),
        ({"const": float("nan")}, "not plain JSON"),
        ({"const": object()}, "not plain JSON"),
    ],
)
def test_what_is_refused_and_why(schema: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        schemas.check(schema)


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
