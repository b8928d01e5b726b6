"""What to run: functions, stages and graphs as pure data, from Python or YAML."""

from adjoin.dag.annotations import Template
from adjoin.dag.binding import (
    Binding,
    Expression,
    Fields,
    Interpolation,
    Items,
    Literal,
    Reference,
    evaluate,
    references,
)
from adjoin.dag.build import build
from adjoin.dag.control import ELEMENT_ERROR, Each, Repeat
from adjoin.dag.datatypes import DataType, assignable, to_json_schema
from adjoin.dag.function import Function, Needs, Policy, builtin, function
from adjoin.dag.graph import Graph, ModelSpec, Objective, Scale, Serve
from adjoin.dag.nested import as_function
from adjoin.dag.parameter import Bounds, Parameter, parse_input
from adjoin.dag.stage import Stage
from adjoin.dag.symbol import each, size, until
from adjoin.dag.wire import from_wire
from adjoin.dag.workflow import Workflow, workflow
from adjoin.dag.yaml_load import load, load_yaml

__all__ = [
    "ELEMENT_ERROR",
    "Binding",
    "Bounds",
    "DataType",
    "Each",
    "Expression",
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
    "Repeat",
    "Scale",
    "Serve",
    "Stage",
    "Template",
    "Workflow",
    "as_function",
    "assignable",
    "build",
    "builtin",
    "each",
    "evaluate",
    "from_wire",
    "function",
    "load",
    "load_yaml",
    "parse_input",
    "references",
    "size",
    "to_json_schema",
    "until",
    "workflow",
]
