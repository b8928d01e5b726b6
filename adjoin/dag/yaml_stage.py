"""A stage of a YAML text: its arguments, its policy, and the constructs around it."""

from __future__ import annotations

from pathlib import Path

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import Template
from adjoin.dag.binding import Binding, container, literal
from adjoin.dag.control import (
    AT_ONCE,
    ITEM,
    MAX_AT_ONCE,
    MAX_ITERATIONS,
    ON_ERROR,
    Each,
    Repeat,
)
from adjoin.dag.function import MAX_ATTEMPTS, Function, Policy
from adjoin.dag.names import parse_seconds
from adjoin.dag.stage import Stage
from adjoin.dag.templates import read_confined
from adjoin.dag.text import parse_text
from adjoin.dag.yaml_nodes import Node
from adjoin.dag.yaml_parts import entries

_DEMANDS = ("resources", "colocate", "avoid")
KEYS = ("uses", "with", "when", "each", "repeat", "timeout", "retry", *_DEMANDS)


def stage_of(id: str, fields: dict[str, Node], function: Function, directory: Path | None) -> Stage:
    """The stage of these keys; template files are read from ``directory``."""
    bindings = {}
    for name, value in entries(fields, "with").items():
        parameter = function.parameter(name)
        template = parameter is not None and dt.accepts(parameter.type, "template")
        bindings[name] = _template(value, directory) if template else binding_of(value)
    return Stage(
        id,
        function,
        bindings,
        _policy(function.policy, fields),
        when=binding_of(fields["when"]) if "when" in fields else None,
        each=_each(fields["each"]) if "each" in fields else None,
        repeat=_repeat(fields["repeat"]) if "repeat" in fields else None,
    )


def binding_of(node: Node) -> Binding:
    if isinstance(node.value, dict):
        return container({key: binding_of(each) for key, each in node.value.items()})
    if isinstance(node.value, list):
        return container([binding_of(each) for each in node.value])
    with node.blamed():
        return parse_text(node.value) if isinstance(node.value, str) else literal(node.value)


def _policy(policy: Policy, fields: dict[str, Node]) -> Policy:
    if "timeout" in fields:
        with fields["timeout"].blamed():
            policy = policy.override(timeout=parse_seconds(fields["timeout"].value))
    if "retry" in fields:
        retry = fields["retry"].fields("retry", ("attempts",), ("attempts",))
        policy = policy.override(attempts=retry["attempts"].integer("attempts", 1, MAX_ATTEMPTS))
    for key in _DEMANDS:
        if key in fields:
            with fields[key].blamed():
                policy = policy.demanding(**{key: fields[key].plain()})
    return policy


def _each(node: Node) -> Each:
    fields = node.fields("each", ("in", "as", "n", "on_error", "at_once"))
    if ("in" in fields) == ("n" in fields):
        raise node.error("each needs a list or a number", "write {in: …} or {n: …}")
    if "n" in fields and "as" in fields:
        raise fields["as"].error("each with a number binds index only", "remove it")
    on_error = fields["on_error"].text("on_error") if "on_error" in fields else "fail"
    for known in ON_ERROR:
        if on_error == known:
            return Each(
                binding_of(fields["n"] if "n" in fields else fields["in"]),
                counts="n" in fields,
                name=fields["as"].text("as") if "as" in fields else ITEM,
                on_error=known,
                at_once=_count(fields, "at_once", MAX_AT_ONCE, AT_ONCE),
            )
    raise fields["on_error"].error(f"on_error is {', '.join(ON_ERROR)}, not {on_error[:80]!r}")


def _repeat(node: Node) -> Repeat:
    fields = node.fields("repeat", ("until", "max", "carry"), ("until", "max"))
    return Repeat(
        binding_of(fields["until"]),
        _count(fields, "max", MAX_ITERATIONS, 1),
        fields["carry"].text("carry") if "carry" in fields else "",
    )


def _count(fields: dict[str, Node], key: str, most: int, default: int) -> int:
    return fields[key].integer(key, 1, most) if key in fields else default


def _template(node: Node, directory: Path | None) -> Binding:
    if not isinstance(node.value, dict):
        return binding_of(node)
    fields = node.fields("a template", ("file", "text"))
    if len(fields) != 1:
        raise node.error("a template is either {file: …} or {text: …}")
    if "text" in fields:
        return Template(fields["text"].text("text"))
    name = fields["file"].text("file")
    if directory is None:
        raise fields["file"].error(
            "template files cannot be read here", "write the template into the workflow"
        )
    with fields["file"].blamed():
        return read_confined(name, directory)
