"""JSON Schemas that callers write: bounded, without network, and the values that fit them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import type_of
from adjoin.dag.datatypes import DataType
from adjoin.errors import DefinitionError
from adjoin.functions.builtin import validation

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16
_PLAIN = {
    "string": dt.STRING,
    "integer": dt.INTEGER,
    "number": dt.NUMBER,
    "boolean": dt.BOOLEAN,
    "null": dt.NULL,
}


def canonical(schema: Mapping[str, Any]) -> str:
    """The text of a schema; equal for equal schemas."""
    return json.dumps(
        schema, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )


def check(schema: Mapping[str, Any], where: str = "argument 'schema'") -> None:
    """Refuse what is no JSON Schema, is too large, or reaches beyond itself.

    Raises:
        DefinitionError: says what is wrong with it, and where in it.
    """
    if not isinstance(schema, Mapping):
        raise DefinitionError(
            f"a schema is a {type(schema).__name__}", where=where, hint="write a JSON Schema object"
        )
    try:
        text = canonical(schema)
    except (TypeError, ValueError, RecursionError):
        raise DefinitionError("the schema is not plain JSON", where=where) from None
    if len(text.encode()) > MAX_BYTES:
        raise DefinitionError(f"the schema is larger than {MAX_BYTES} bytes", where=where)
    for keys, part in _parts(schema):
        at = "/".join(keys) or "its root"
        if len(keys) > MAX_DEPTH * 2:
            raise DefinitionError(f"the schema is nested more than {MAX_DEPTH} deep", where=where)
        if refused := _refused(part):
            raise DefinitionError(f"{refused[0]} at {at}", where=where, hint=refused[1])
    _check_against_metaschema(text, where)


def _refused(part: Mapping[str, Any]) -> tuple[str, str] | None:
    """What no part of a schema may say, and a hint."""
    for name in ("$ref", "$dynamicRef"):
        reference = part.get(name)
        if isinstance(reference, str) and not reference.startswith("#"):
            hint = "refer to parts of the schema itself, as #/$defs/name"
            return f"the schema refers to {reference[:80]!r}", hint
    pattern = part.get("pattern")
    if isinstance(pattern, str) and not validation.is_pattern(pattern):
        hint = "look-around and back-references are not available"
        return f"the pattern {pattern[:80]!r} cannot be used", hint
    if isinstance(part.get("patternProperties"), Mapping):
        return "patternProperties is not available", "list the properties, or use propertyNames"
    return None


def _check_against_metaschema(text: str, where: str) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(json.loads(text))
    except SchemaError as error:
        at = "/".join(map(str, error.absolute_path)) or "its root"
        raise DefinitionError(
            f"the schema is wrong at {at}: {error.message[:200]}",
            where=where,
            hint="see json-schema.org, draft 2020-12",
        ) from None


def misfit(value: Any, schema: Mapping[str, Any]) -> str:
    """Why a value does not fit a checked schema; empty when it does."""
    return validation.misfit(value, canonical(schema))


def data_type(schema: Mapping[str, Any]) -> DataType:
    """What edges carry when values fit a schema; ``any`` where that cannot be told at a glance."""
    reference = str(schema.get("$ref", ""))
    if reference.startswith("#/$defs/"):  # as msgspec and pydantic write a type that has parts
        part = dict(schema.get("$defs") or {}).get(reference.removeprefix("#/$defs/"))
        return data_type(part) if isinstance(part, Mapping) and "$ref" not in part else dt.ANY
    if isinstance(options := schema.get("enum"), list) and options:
        return dt.union(*map(type_of, options))
    if "const" in schema:
        return type_of(schema["const"])
    kind = schema.get("type")
    if isinstance(kind, list):
        return dt.union(*(data_type({**schema, "type": each}) for each in kind))
    if kind == "object":
        return _record(schema.get("properties"))
    if kind == "array":
        items = schema.get("items")
        return dt.list_of(data_type(items) if isinstance(items, Mapping) else dt.ANY)
    return _PLAIN.get(str(kind), dt.ANY)


def _record(properties: object) -> DataType:
    if not isinstance(properties, Mapping) or not properties:
        return dt.dict_of(dt.ANY)
    return dt.record(
        {
            name: data_type(part) if isinstance(part, Mapping) else dt.ANY
            for name, part in properties.items()
        }
    )


def _parts(schema: Any) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every object inside of a schema, with the keys that lead to it."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), schema)]
    while stack:
        keys, part = stack.pop()
        if isinstance(part, Mapping):
            yield keys, part
            stack += [((*keys, str(key)), value) for key, value in part.items()]
        elif isinstance(part, list | tuple):
            stack += [((*keys, str(at)), value) for at, value in enumerate(part)]
