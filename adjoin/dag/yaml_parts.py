"""The parts of a workflow's YAML text beside its stages: inputs, models, serving."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import parse_type
from adjoin.dag.binding import literal
from adjoin.dag.graph import ModelSpec, Objective, Scale, Serve
from adjoin.dag.names import check_name, parse_seconds
from adjoin.dag.parameter import Bounds, Parameter
from adjoin.dag.yaml_nodes import Node
from adjoin.types import Scalar

BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "enum")


def entries(fields: Mapping[str, Node], key: str) -> Mapping[str, Node]:
    """The entries of a mapping that may be absent."""
    return fields[key].mapping(key) if key in fields else {}


def description(fields: Mapping[str, Node]) -> str:
    return fields["description"].text("description") if "description" in fields else ""


def input_of(name: str, node: Node) -> Parameter:
    what = f"input {name[:80]!r}"
    with node.blamed():
        check_name(name, "an input")
    if isinstance(node.value, str):
        with node.blamed():
            return Parameter(name, parse_type(node.value))
    fields = node.fields(what, ("type", "default", "description", *BOUNDS))
    kind, default = dt.ANY, None
    if "type" in fields:
        with fields["type"].blamed():
            kind = parse_type(fields["type"].text("type"))
    if "default" in fields:
        with fields["default"].blamed():
            default = literal(fields["default"].plain())
    try:
        given = {key: fields[key].plain() for key in BOUNDS if key in fields}
        bounds = msgspec.convert(given, Bounds)
    except msgspec.ValidationError as error:
        raise node.error(f"{what}: {error}") from None
    with fields.get("default", node).blamed():
        parameter = Parameter(name, kind, default, bounds, description(fields))
        return parameter.check_default()


def model_of(name: str, node: Node) -> ModelSpec:
    with node.blamed():
        check_name(name, "a model")
    if isinstance(node.value, str):
        return ModelSpec(source=node.value)
    fields = node.fields(f"model {name!r}", ("source", "engine", "args"), ("source",))
    args: dict[str, Scalar] = {}
    for key, value in entries(fields, "args").items():
        if isinstance(value.value, list | dict):
            raise value.error(f"the engine argument {key[:80]!r} must be a text, number or boolean")
        args[key] = value.value
    engine = fields["engine"].text("engine") if "engine" in fields else "auto"
    return ModelSpec(source=fields["source"].text("source"), engine=engine, args=args)


def serve_of(node: Node) -> Serve:
    fields = node.fields("serve", ("scale", "concurrency", "queue", "slo"))
    scale, slo = Scale(), Objective()
    if "scale" in fields:
        given = fields["scale"].fields("scale", ("min", "max", "idle_after"))
        scale = Scale(
            min=given["min"].integer("min", 0, 1024) if "min" in given else 0,
            max=given["max"].integer("max", 1, 1024) if "max" in given else 1,
            idle_after=_seconds(given, "idle_after"),
        )
        if scale.min > scale.max:
            raise fields["scale"].error(f"min ({scale.min}) is larger than max ({scale.max})")
    if "slo" in fields:
        given = fields["slo"].fields("slo", ("ttft", "itl"))
        slo = Objective(ttft=_seconds(given, "ttft"), itl=_seconds(given, "itl"))
    counts = {
        key: fields[key].integer(key, least, 100_000)
        for key, least in (("concurrency", 1), ("queue", 0))
        if key in fields
    }
    return Serve(scale=scale, slo=slo, **counts)


def _seconds(fields: Mapping[str, Node], key: str) -> float | None:
    if key not in fields:
        return None
    with fields[key].blamed():
        return parse_seconds(fields[key].value)
