"""From a Graph to the YAML text that loads to an equal one, templates included."""

from __future__ import annotations

import io
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from adjoin.dag.annotations import Template
from adjoin.dag.binding import Binding
from adjoin.dag.graph import Graph, ModelSpec, Scale, Serve
from adjoin.dag.names import format_seconds
from adjoin.dag.parameter import Parameter
from adjoin.dag.stage import Stage
from adjoin.dag.text import write
from adjoin.dag.yaml_load import API_VERSION, KIND


def to_yaml(graph: Graph) -> str:
    """See ``Graph.to_yaml``."""
    metadata = {"name": graph.name}
    if graph.description:
        metadata["description"] = graph.description
    spec: dict[str, Any] = {
        "inputs": {each.name: _input(each) for each in graph.inputs},
        "models": {name: _model(spec) for name, spec in graph.models.items()},
        "stages": {stage.id: _stage(stage) for stage in graph.stages},
        "outputs": (
            write(graph.outputs["output"])
            if graph.bare
            else {name: write(bound) for name, bound in graph.outputs.items()}
        ),
        "serve": _serve(graph.serve),
    }
    for empty in ("inputs", "models", "serve"):
        if not spec[empty]:
            del spec[empty]
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
    writer = YAML()
    writer.default_flow_style = False
    writer.width = 100_000  # folding would hide what a long text is
    stream = io.StringIO()
    writer.dump(_styled(document), stream)
    return stream.getvalue()


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
    found: dict[str, Any] = {"uses": stage.function.ref}
    if stage.bindings:
        found["with"] = {name: _argument(bound) for name, bound in stage.bindings.items()}
    own = stage.function.policy
    if stage.policy.timeout is not None and stage.policy.timeout != own.timeout:
        found["timeout"] = format_seconds(stage.policy.timeout)
    if stage.policy.attempts != own.attempts:
        found["retry"] = {"attempts": stage.policy.attempts}
    return found


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
