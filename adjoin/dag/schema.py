"""JSON Schema (2020-12) of workflow texts, for editors and for other programs.

``python -m adjoin.dag.schema adjoin.functions:BUILTINS`` prints it for a registry of functions. The
schema knows what a single text can show; types of connected stages, cycles and the like are found
by loading.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import TYPE_NAMES
from adjoin.dag.control import (
    AT_ONCE,
    MAX_AT_ONCE,
    MAX_ELEMENTS,
    MAX_ITERATIONS,
    ON_ERROR,
)
from adjoin.dag.datatypes import DataType
from adjoin.dag.demands import MAX_AMOUNT, MAX_DEMANDS, MAX_NAME
from adjoin.dag.function import MAX_ATTEMPTS, Function
from adjoin.dag.names import NAME
from adjoin.dag.parameter import Bounds, Parameter
from adjoin.dag.yaml_load import API_VERSION, KIND

Schema = dict[str, Any]

_NAME = f"^{NAME.pattern}$"
_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_REFERENCE: Schema = {"$ref": "#/$defs/reference"}
_DURATION: Schema = {"$ref": "#/$defs/duration"}
_DEFS: Schema = {
    "reference": {
        "description": "Such as ${inputs.question}, ${retrieve[0].text} or ${size(parts) > 1}",
        "type": "string",
        "pattern": r"\$\{",
    },
    "duration": {
        "description": 'Seconds, or a text such as "30s", "250ms", "5m", "1h"',
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400},
            {"type": "string", "pattern": r"^\s*\d+(\.\d+)?([eE][+-]?\d+)?\s*(ms|s|m|h)\s*$"},
        ],
    },
    "type": {
        "description": "A type such as string, list[Passage] or integer | null",
        "anyOf": [{"enum": list(TYPE_NAMES)}, {"type": "string", "pattern": r"[\[|]"}],
    },
}


def json_schema(registry: Mapping[str, Function]) -> Schema:
    """The schema of workflow texts that use these built-in functions."""
    body = _body()
    nested = _object({"description": {"type": "string"}, **body}, required=("stages", "outputs"))
    workflows = _named(nested, "Workflows that stages use like functions, by name")
    spec = {
        **_object(
            {**body, "workflows": workflows, "serve": _serve()}, required=("stages", "outputs")
        ),
        "if": {"required": ["workflows"]},
        "else": {"properties": {"stages": {"additionalProperties": _function_only(registry)}}},
    }
    metadata = {"name": {"type": "string", "pattern": _NAME}, "description": {"type": "string"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:adjoin:workflow:v1",
        "title": "adjoin workflow",
        **_object(
            {
                "apiVersion": {"const": API_VERSION},
                "kind": {"const": KIND},
                "metadata": _object(metadata, required=("name",)),
                "spec": spec,
            },
            required=("apiVersion", "kind", "metadata", "spec"),
        ),
        "$defs": {**_DEFS, "stage": _stage(registry)},
    }


def _body() -> Schema:
    """What a workflow consists of, wherever it stands."""
    stages = _named({"$ref": "#/$defs/stage"}, "Uses of functions")
    return {
        "inputs": _named(_input(), "What a caller gives"),
        "models": _named(_model(), "Models under names of the workflow's own"),
        "stages": {**stages, "minProperties": 1},
        "outputs": {
            "description": "One value, or values by name",
            "anyOf": [
                {"type": "object", "propertyNames": {"pattern": _NAME}, "minProperties": 1},
                {"type": ["string", "array"]},
            ],
        },
    }


def _object(properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": list(required)} if required else found


def _named(item: Schema, description: str) -> Schema:
    return {
        "description": description,
        "type": "object",
        "propertyNames": {"pattern": _NAME},
        "additionalProperties": item,
    }


# --- inputs, models, serving ------------------------------------------------------------------


def _input() -> Schema:
    kind = {"$ref": "#/$defs/type"}
    fields: Schema = {
        "type": kind,
        "default": {},
        "description": {"type": "string"},
        "minimum": {"type": "number"},
        "maximum": {"type": "number"},
        "minLength": {"type": "integer"},
        "maxLength": {"type": "integer"},
        "enum": {"type": "array", "items": _SCALAR},
    }
    return {"anyOf": [kind, _object(fields)]}


def _model() -> Schema:
    fields: Schema = {
        "source": {
            "description": "A known name, org/name[@revision], a folder, a .gguf file, wheel:…",
            "type": "string",
        },
        "engine": {"type": "string"},
        "args": {"type": "object", "additionalProperties": _SCALAR},
    }
    return {"anyOf": [{"type": "string"}, _object(fields, required=("source",))]}


def _serve() -> Schema:
    def count(minimum: int, maximum: int) -> Schema:
        return {"type": "integer", "minimum": minimum, "maximum": maximum}

    return _object(
        {
            "scale": _object(
                {"min": count(0, 1024), "max": count(1, 1024), "idle_after": _DURATION}
            ),
            "concurrency": count(1, 100_000),
            "queue": count(0, 100_000),
            "slo": _object({"ttft": _DURATION, "itl": _DURATION}),
        }
    )


# --- stages -----------------------------------------------------------------------------------


def _stage(registry: Mapping[str, Function]) -> Schema:
    builtin: list[Schema] = [
        {"const": name, "description": registry[name].description} for name in sorted(registry)
    ]
    fields: Schema = {
        "uses": {
            "description": "A built-in function, py:module:name, or a workflow beside this one",
            "anyOf": [*builtin, {"type": "string", "pattern": _USES}],
        },
        "with": {"type": "object"},
        "when": {
            "description": "The stage is skipped, and its value null, where this is false",
            **_CONDITION,
        },
        "each": _each(),
        "repeat": _repeat(),
        "timeout": _DURATION,
        "retry": _object({"attempts": _count(MAX_ATTEMPTS)}, required=("attempts",)),
        **_demands(),
    }
    return {
        **_object(fields, required=("uses",)),
        "allOf": [_use(registry[name]) for name in sorted(registry)],
    }


_USES = rf"^(py:[^:]+:[^:]+|{NAME.pattern})$"
_CONDITION: Schema = {"anyOf": [_REFERENCE, {"type": "boolean"}]}


def _function_only(registry: Mapping[str, Function]) -> Schema:
    """A stage of a text without workflows to use."""
    known = [{"enum": sorted(registry)}, {"type": "string", "pattern": "^py:"}]
    return {"properties": {"uses": {"anyOf": known}}}


def _count(most: int) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": most}


def _demands() -> Schema:
    name = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
    names = {"anyOf": [name, {"type": "array", "items": name, "maxItems": MAX_DEMANDS}]}
    amount = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_AMOUNT}
    memory = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*([KMGT]i?B|B)\s*$"}
    return {
        "resources": {
            "description": "What the worker must have: memory (bytes), threads, cuda (devices), "
            "or Dask's abstract resources",
            "type": "object",
            "properties": {"memory": {"anyOf": [amount, memory]}},
            "additionalProperties": amount,
            "propertyNames": {"minLength": 1, "maxLength": MAX_NAME},
            "maxProperties": MAX_DEMANDS,
        },
        "colocate": {"description": "Stages that must run on the same worker", **names},
        "avoid": {
            "description": "Workers and hosts to keep off, and stages not to share a worker with",
            **names,
        },
    }


def _each() -> Schema:
    fields: Schema = {
        "in": {"description": "The list", "anyOf": [_REFERENCE, {"type": "array"}]},
        "as": {"description": "What an element is called", "type": "string", "pattern": _NAME},
        "n": {
            "description": "The number of elements, instead of a list",
            "anyOf": [_REFERENCE, {"type": "integer", "minimum": 0, "maximum": MAX_ELEMENTS}],
        },
        "on_error": {
            "description": "What an element that failed does",
            "enum": list(ON_ERROR),
            "default": "fail",
        },
        "at_once": {
            "description": "How many elements run at one time",
            **_count(MAX_AT_ONCE),
            "default": AT_ONCE,
        },
    }
    alone: list[Schema] = [
        {"required": ["in"]},
        {"required": ["n"], "properties": {"as": False}},
    ]
    about = "The function is called for each element; ${item} and ${index} are bound"
    return {"description": about, **_object(fields), "oneOf": alone}


def _repeat() -> Schema:
    fields: Schema = {
        "until": {"description": "Of ${result} and ${iteration}", **_CONDITION},
        "max": {"description": "How often, at most", **_count(MAX_ITERATIONS)},
        "carry": {
            "description": "The argument that the result becomes",
            "type": "string",
            "pattern": _NAME,
        },
    }
    about = "The function is called again with what it returned, until a condition holds"
    return {"description": about, **_object(fields, required=("until", "max"))}


def _use(function: Function) -> Schema:
    """What ``with`` may hold where ``uses`` names this function."""
    properties = {each.name: _argument(function, each) for each in function.parameters}
    required = tuple(each.name for each in function.parameters if each.required)
    arguments = _object(properties, required=required)
    if function.extra:
        arguments["additionalProperties"] = True
    then: Schema = {"properties": {"with": arguments}}
    if required:
        then["required"] = ["with"]
    return {
        "if": {"properties": {"uses": {"const": function.ref}}, "required": ["uses"]},
        "then": then,
    }


def _argument(function: Function, parameter: Parameter) -> Schema:
    found = _bindable(parameter.type, parameter.bounds)
    if parameter.name in (function.needs.model, function.needs.collection):
        found = {"type": "string", "minLength": 1, "not": {"pattern": r"\$\{"}}
        if dt.accepts(parameter.type, "null"):
            found = {"anyOf": [found, {"type": "null"}]}
    if parameter.default is not None:
        found = {**found, "default": parameter.default.value}
    if parameter.description:
        found = {**found, "description": parameter.description}
    return found


def _bindable(of: DataType, bounds: Bounds) -> Schema:
    """What may be written for a value of a type: constants of it, and references."""
    options = [_constant(member, bounds) for member in dt.members(of)]
    if {} in options:
        return {}
    return {"anyOf": [*(each for each in options if each is not None), _REFERENCE]}


def _constant(of: DataType, bounds: Bounds) -> Schema | None:
    """Constants of a type; None where it has none in a workflow text."""
    limits: Schema = msgspec.to_builtins(bounds)
    inner = Bounds()
    if of.kind in ("array", "struct", "bytes"):
        return None
    if of.kind in ("list", "dict"):
        item = _bindable(of.args[-1], inner)
        if of.kind == "dict":
            return {"type": "object", "additionalProperties": item}
        sizes = {"minLength": "minItems", "maxLength": "maxItems"}
        return {
            "type": "array",
            "items": item,
            **{sizes[key]: value for key, value in limits.items() if key in sizes},
        }
    relevant = {"integer": ("minimum", "maximum", "enum"), "number": ("minimum", "maximum", "enum")}
    kept = relevant.get(of.kind, ("minLength", "maxLength", "enum"))
    found = dt.to_json_schema(of)
    if of.kind in ("string", "integer", "number"):
        found |= {key: value for key, value in limits.items() if key in kept}
    return found


def main(argv: list[str]) -> None:
    """Print the schema for the registry named ``module:attribute``."""
    module, _, attribute = argv[0].partition(":")
    registry: Mapping[str, Function] = getattr(importlib.import_module(module), attribute)
    sys.stdout.write(render(registry))


def render(registry: Mapping[str, Function]) -> str:
    """The schema as the text that is shipped."""
    return json.dumps(json_schema(registry), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
