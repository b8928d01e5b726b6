"""Classes given as constants: in a graph, a class of data means its JSON Schema."""

from __future__ import annotations

import dataclasses
import enum
import typing
from typing import Any

import msgspec

from adjoin.errors import GraphError


def is_data_class(value: object) -> bool:
    """Whether a value is a pydantic model, a dataclass, a msgspec structure, a typed dict or enum.

    The class itself, not an instance of it.
    """
    if not isinstance(value, type):
        return False
    return (
        hasattr(value, "model_json_schema")
        or dataclasses.is_dataclass(value)
        or issubclass(value, msgspec.Struct | enum.Enum)
        or typing.is_typeddict(value)
    )


def json_schema_of(cls: Any) -> dict[str, Any]:
    """JSON Schema (2020-12) of a class of data.

    Raises:
        GraphError: a part of it has no JSON form.
    """
    try:
        if hasattr(cls, "model_json_schema"):
            return dict(cls.model_json_schema())
        return msgspec.json.schema(cls)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise GraphError(
            f"{cls.__name__} has no JSON Schema: {reason}",
            hint="annotate its fields with types of JSON",
        ) from None
