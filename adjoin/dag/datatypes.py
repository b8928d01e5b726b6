"""The data types that edges carry, and which of them fit into which.

The algebra is gradual: ``any`` fits everywhere, and an edge is refused only when no value could
pass. Values are not converted on an edge; what a stage returns is what the next one gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class DataType(msgspec.Struct, frozen=True, omit_defaults=True):
    """One type.

    Attributes:
        kind: string, integer, number, boolean, bytes, null, any, list, dict, union, array, struct
            or template.
        args: the item type of a list, key and value types of a dict, members of a union.
        name: of a struct, ``module:qualname`` (``Passage``, ``Message`` for ours); of an array, its
            element type, empty when any.
        fields: of a struct, where they are known; of a dict whose keys are.
        bases: names of the structs that a struct derives from.
        opaque: of a struct, whether its values cannot leave the process that made them.
    """

    kind: str
    args: tuple[DataType, ...] = ()
    name: str = ""
    fields: tuple[tuple[str, DataType], ...] | None = None
    bases: tuple[str, ...] = ()
    opaque: bool = False

    def __str__(self) -> str:
        match self.kind:
            case "dict" if self.fields is not None:
                return f"{{{', '.join(f'{name}: {field}' for name, field in self.fields)}}}"
            case "list" | "dict":
                return f"{self.kind}[{', '.join(map(str, self.args))}]"
            case "union":
                return " | ".join(map(str, self.args)) or "never"
            case "array":
                return "Vector" if self.name == "float32" else f"array[{self.name or 'any'}]"
            case "struct":
                return self.name
        return self.kind


ANY = DataType("any")
NULL = DataType("null")
STRING = DataType("string")
INTEGER = DataType("integer")
NUMBER = DataType("number")
BOOLEAN = DataType("boolean")
BYTES = DataType("bytes")
TEMPLATE = DataType("template")
VECTOR = DataType("array", name="float32")
#: What a text may interpolate.
SCALARS = frozenset({"string", "integer", "number", "boolean", "any"})


def list_of(item: DataType) -> DataType:
    return DataType("list", (item,))


def dict_of(value: DataType, key: DataType = STRING) -> DataType:
    return DataType("dict", (key, value))


def record(fields: Mapping[str, DataType]) -> DataType:
    """A dict with these keys."""
    return DataType("dict", (STRING, union(*fields.values())), fields=tuple(fields.items()))


def union(*members: DataType) -> DataType:
    """The union, flat, without duplicates and in a fixed order. Of nothing: fits everywhere."""
    flat: dict[str, DataType] = {}
    for member in members:
        for part in member.args if member.kind == "union" else (member,):
            flat[str(part)] = part
    if "any" in flat:
        return ANY
    if len(flat) == 1:
        return next(iter(flat.values()))
    # null last, as people write it
    order = sorted(flat, key=lambda text: (text == "null", text))
    return DataType("union", tuple(flat[text] for text in order))


def members(of: DataType) -> tuple[DataType, ...]:
    """The members of a union; the type itself when it is none."""
    return of.args if of.kind == "union" else (of,)


def accepts(target: DataType, kind: str) -> bool:
    """Whether ``target`` or a member of it has this kind."""
    return any(member.kind == kind for member in members(target))


def assignable(source: DataType, target: DataType) -> bool:
    """Whether every value of ``source`` may be given where ``target`` is wanted."""
    if source.kind == "any" or target.kind == "any":
        return True
    if source.kind == "union":
        return all(assignable(member, target) for member in source.args)
    if target.kind == "union":
        return any(assignable(source, member) for member in target.args)
    if source.kind == "integer" and target.kind == "number":
        return True
    if source.kind != target.kind:
        return False
    match source.kind:
        case "list" | "dict":
            return all(map(assignable, source.args, target.args))
        case "array":
            return target.name in ("", source.name) or not source.name
        case "struct":
            return target.name == source.name or target.name in source.bases
    return True


#: Element types of arrays that are not plain memory.
_CONFINED_ELEMENTS = frozenset({"object_", "datetime64", "timedelta64", "void", "record"})
#: What a key may be where dictionaries travel.
_KEYS = frozenset({"string", "integer", "any"})


def confined(of: DataType) -> DataType | None:
    """The first part of a type whose values cannot leave their process; None when all can travel.

    It states what the codec of the layer above encodes (``transport/codec.py``); a test holds both
    against each other. What ``any`` stands for is seen when a value is there.
    """
    if of.opaque or (of.kind == "array" and of.name in _CONFINED_ELEMENTS):
        return of
    if of.kind == "dict" and (bad := [m for m in members(of.args[0]) if m.kind not in _KEYS]):
        return bad[0]
    parts = [*of.args, *(field for _, field in of.fields or ())]
    return next((found for part in parts if (found := confined(part)) is not None), None)


class NoSuchStep(Exception):
    """A path does not exist in a type; the text says why."""


def step(of: DataType, key: str | int) -> DataType:
    """The type behind one step of a path: a field or key by name, an item by position.

    Raises:
        NoSuchStep: the type is known to have no such part.
    """
    if of.kind == "any":
        return ANY
    if of.kind == "union":
        return union(*(step(member, key) for member in of.args))
    if isinstance(key, int):
        if of.kind == "list":
            return of.args[0]
        if of.kind == "array":
            return ANY
        raise NoSuchStep(f"{of} has no items to count")
    if of.kind == "dict" and of.fields is None and of.args[0].kind in ("string", "any"):
        return of.args[1]
    if of.kind == "struct" and of.fields is None:
        return ANY
    if of.fields is not None:
        if key in (fields := dict(of.fields)):
            return fields[key]
        raise NoSuchStep(f"{of} has no field {key!r} (it has {', '.join(fields) or 'none'})")
    raise NoSuchStep(f"{of} has no field {key!r}")


_SCHEMAS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "any": {},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "template": {
        "anyOf": [
            {"type": "string"},
            *(
                {
                    "type": "object",
                    "properties": {key: {"type": "string"}},
                    "required": [key],
                    "additionalProperties": False,
                }
                for key in ("file", "text")
            ),
        ]
    },
}


def to_json_schema(of: DataType) -> dict[str, Any]:
    """JSON Schema (2020-12) of the JSON form of a type."""
    match of.kind:
        case "list":
            return {"type": "array", "items": to_json_schema(of.args[0])}
        case "dict" if of.fields is not None:
            return {
                "type": "object",
                "properties": {name: to_json_schema(field) for name, field in of.fields},
            }
        case "dict":
            return {"type": "object", "additionalProperties": to_json_schema(of.args[1])}
        case "union":
            options = [to_json_schema(member) for member in of.args]
            return {"anyOf": options} if options else {"not": {}}
        case "array":
            row = {"type": "array", "items": {"type": "number"}}
            return {"anyOf": [row, {"type": "array", "items": row}]}
        case "struct":
            properties = {name: to_json_schema(field) for name, field in of.fields or ()}
            return {"type": "object", "title": of.name, "properties": properties}
    return dict(_SCHEMAS[of.kind])
