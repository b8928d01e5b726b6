"""From a Graph to the YAML text that loads to an equal one, templates included."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from adjoin.dag.annotations import Template
from adjoin.dag.binding import Binding
from adjoin.dag.control import AT_ONCE, ITEM, Each, Repeat
from adjoin.dag.graph import Graph, ModelSpec, Scale, Serve
from adjoin.dag.names import format_seconds
from adjoin.dag.nested import PREFIX
from adjoin.dag.parameter import Parameter
from adjoin.dag.stage import Stage
from adjoin.dag.text import write
from adjoin.dag.yaml_load import API_VERSION, KIND


def to_yaml(graph: Graph) -> str:
    """See ``Graph.to_yaml``."""
    metadata = {"name": graph.name}
    if graph.description:
        metadata["description"] = graph.description
    spec = _spec(graph, graph.nested)
    if serve := _serve(graph.serve):
        spec["serve"] = serve
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
    writer = YAML()
    writer.default_flow_style = False
    writer.width = 100_000  # folding would hide what a long text is
    stream = io.StringIO()
    writer.dump(_styled(document), stream)
    return stream.getvalue()


def _spec(graph: Graph, nested: Mapping[str, Graph]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "inputs": {each.name: _input(each) for each in graph.inputs},
        "models": {name: _model(spec) for name, spec in graph.models.items()},
        "workflows": {name: _nested(nested[name]) for name in sorted(nested)},
        "stages": {stage.id: _stage(stage) for stage in graph.stages},
        "outputs": (
            write(graph.outputs["output"])
            if graph.bare
            else {name: write(bound) for name, bound in graph.outputs.items()}
        ),
    }
    return {key: value for key, value in found.items() if value or key in ("stages", "outputs")}


def _nested(graph: Graph) -> dict[str, Any]:
    """A workflow that is used as a function; those within it stand beside it."""
    about = {"description": graph.description} if graph.description else {}
    return {**about, **_spec(graph, {})}


def _input(parameter: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {"type": str(parameter.type)}
    if parameter.default is not None:
        found["default"] = parameter.default.value
    for key, bound in msgspec.to_builtins(parameter.bounds).items():
        whole = isinstance(bound, float) and bound.is_integer()
        found[key] = int(bound) if whole else bound
    if parameter.description:
        found["description"] = parameter.description
    return found


def _model(spec: ModelSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"source": spec.source}
    if spec.engine != "auto":
        found["engine"] = spec.engine
    if spec.args:
        found["args"] = dict(spec.args)
    return found


def _stage(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = {"uses": stage.function.ref.removeprefix(PREFIX)}
    if stage.when is not None:
        found["when"] = write(stage.when)
    if stage.each is not None:
        found["each"] = _each(stage.each)
    if stage.repeat is not None:
        found["repeat"] = _repeat(stage.repeat)
    if stage.bindings:
        found["with"] = {name: _argument(bound) for name, bound in stage.bindings.items()}
    own = stage.function.policy
    if stage.policy.timeout is not None and stage.policy.timeout != own.timeout:
        found["timeout"] = format_seconds(stage.policy.timeout)
    if stage.policy.attempts != own.attempts:
        found["retry"] = {"attempts": stage.policy.attempts}
    return {**found, **_demands(stage)}


def _demands(stage: Stage) -> dict[str, Any]:
    """What it demands of its worker, where that is not its function's own demand."""
    policy, own = stage.policy, stage.function.policy
    found: dict[str, Any] = {}
    if policy.resources != own.resources:
        found["resources"] = {
            name: int(amount) if amount.is_integer() else amount
            for name, amount in policy.resources.items()
        }
    if policy.colocate != own.colocate:
        found["colocate"] = list(policy.colocate)
    if policy.avoid != own.avoid:
        found["avoid"] = list(policy.avoid)
    return found


def _each(each: Each) -> dict[str, Any]:
    found = {"n" if each.counts else "in": write(each.over)}
    if each.name != ITEM and not each.counts:
        found["as"] = each.name
    if each.on_error != "fail":
        found["on_error"] = each.on_error
    if each.at_once != AT_ONCE:
        found["at_once"] = each.at_once
    return found


def _repeat(repeat: Repeat) -> dict[str, Any]:
    found = {"until": write(repeat.until), "max": repeat.max}
    return {**found, "carry": repeat.carry} if repeat.carry else found


def _argument(bound: Binding) -> Any:
    if isinstance(bound, Template) and "${" not in bound.text:
        return bound.text
    return write(bound)


def _styled(value: Any) -> Any:
    """The value with each text in the style that keeps it exactly, and lines readable."""
    if isinstance(value, dict):
        return {_styled_text(key, block=False): _styled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_styled(item) for item in value]
    return _styled_text(value, block=True) if isinstance(value, str) else value


def _styled_text(text: str, block: bool) -> str:
    if text.isprintable():
        return text
    if block and not text[0].isspace() and text.replace("\n", "").isprintable():
        return str.__new__(LiteralScalarString, text)
    return str.__new__(DoubleQuotedScalarString, text)


def _serve(serve: Serve) -> dict[str, Any]:
    def seconds(value: float | None) -> str | None:
        return None if value is None else format_seconds(value)

    scale, slo = serve.scale, serve.slo
    found: dict[str, Any] = {
        "scale": {"min": scale.min, "max": scale.max, "idle_after": seconds(scale.idle_after)},
        "concurrency": serve.concurrency,
        "queue": serve.queue,
        "slo": {"ttft": seconds(slo.ttft), "itl": seconds(slo.itl)},
    }
    if scale == Scale():
        del found["scale"]
    return _without_none(found)


def _without_none(found: dict[str, Any]) -> dict[str, Any]:
    """The dict without what is not set, down to dicts that are then empty."""
    pruned = {k: _without_none(v) if isinstance(v, dict) else v for k, v in found.items()}
    return {key: value for key, value in pruned.items() if value is not None and value != {}}
