"""What to run: functions, stages and graphs as pure data, from Python or YAML."""

from adjoin.dag.annotations import Template
from adjoin.dag.binding import (
    Binding,
    Fields,
    Interpolation,
    Items,
    Literal,
    Reference,
    evaluate,
    references,
)
from adjoin.dag.build import build
from adjoin.dag.datatypes import DataType, assignable, to_json_schema
from adjoin.dag.function import Function, Needs, Policy, builtin, function
from adjoin.dag.graph import Graph, ModelSpec, Objective, Scale, Serve, Stage
from adjoin.dag.parameter import Bounds, Parameter, parse_input
from adjoin.dag.trace import Workflow, workflow
from adjoin.dag.wire import from_wire
from adjoin.dag.yaml_load import load, load_yaml

__all__ = [
    "Binding",
    "Bounds",
    "DataType",
    "Fields",
    "Function",
    "Graph",
    "Interpolation",
    "Items",
    "Literal",
    "ModelSpec",
    "Needs",
    "Objective",
    "Parameter",
    "Policy",
    "Reference",
    "Scale",
    "Serve",
    "Stage",
    "Template",
    "Workflow",
    "assignable",
    "build",
    "builtin",
    "evaluate",
    "from_wire",
    "function",
    "load",
    "load_yaml",
    "parse_input",
    "references",
    "to_json_schema",
    "workflow",
]
