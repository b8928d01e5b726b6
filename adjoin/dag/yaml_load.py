"""From a workflow's YAML text to a Graph; errors carry file, line and column."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import Template
from adjoin.dag.binding import Binding, container, literal
from adjoin.dag.build import build
from adjoin.dag.function import MAX_ATTEMPTS, Function
from adjoin.dag.graph import Graph
from adjoin.dag.names import check_name, parse_seconds, suggest
from adjoin.dag.stage import Stage
from adjoin.dag.templates import read_confined
from adjoin.dag.text import parse_text
from adjoin.dag.yaml_nodes import Node, parse
from adjoin.dag.yaml_parts import description, entries, input_of, model_of, serve_of
from adjoin.errors import AdjoinError, GraphError, NotFound, YamlError

API_VERSION = "adjoin/v1"
KIND = "Workflow"

#: Gives what a module has under a qualified name; raises what importing raises.
ImportFunction: TypeAlias = Callable[[str, str], Any]
#: Which modules ``py:`` may name: these, or those for which it returns true.
AllowedModules: TypeAlias = Collection[str] | Callable[[str], bool]

_PY = re.compile(r"py:([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def load(
    path: str | Path,
    *,
    registry: Mapping[str, Function],
    import_function: ImportFunction | None = None,
    allowed_modules: AllowedModules = (),
) -> Graph:
    """The graph of a YAML file; template files are read from its folder.

    Raises:
        NotFound: there is no such file.
        YamlError: the text is wrong.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"the workflow cannot be read: {error.strerror or error}", where=str(path)
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise YamlError.at(str(path), line, 1, "the text is not UTF-8") from None
    return load_yaml(
        text,
        file=str(path),
        directory=path.parent,
        registry=registry,
        import_function=import_function,
        allowed_modules=allowed_modules,
    )


def load_yaml(
    text: str,
    *,
    file: str = "<string>",
    directory: Path | None = None,
    registry: Mapping[str, Function],
    import_function: ImportFunction | None = None,
    allowed_modules: AllowedModules = (),
) -> Graph:
    """The graph of a YAML text.

    Args:
        file: how errors name the text.
        directory: where ``{file: …}`` templates are; without one they are refused.
        registry: the built-in functions by name.
        import_function: how to import what ``py:module:qualname`` names; without one it is refused.
        allowed_modules: the modules that it may name.

    Raises:
        YamlError: the text is wrong; has file, line and column.
    """
    root = parse(text, file)
    return _Loader(directory, registry, import_function, allowed_modules).graph(root)


class _Loader:
    def __init__(
        self,
        directory: Path | None,
        registry: Mapping[str, Function],
        import_function: ImportFunction | None,
        allowed_modules: AllowedModules,
    ) -> None:
        self.directory = directory
        self.registry = registry
        self.import_function = import_function
        if callable(allowed_modules):
            self.is_allowed = allowed_modules
        else:
            one = isinstance(allowed_modules, str)
            self.is_allowed = frozenset([allowed_modules] if one else allowed_modules).__contains__

    def graph(self, root: Node) -> Graph:
        top = root.fields(
            "a workflow",
            ("apiVersion", "kind", "metadata", "spec"),
            ("apiVersion", "kind", "metadata", "spec"),
        )
        _constant(top["apiVersion"], "apiVersion", API_VERSION)
        _constant(top["kind"], "kind", KIND)
        metadata = top["metadata"].fields("metadata", ("name", "description"), ("name",))
        spec = top["spec"].fields(
            "spec", ("inputs", "models", "stages", "outputs", "serve"), ("stages", "outputs")
        )
        stages = {key: self._stage(key, node) for key, node in entries(spec, "stages").items()}
        outputs, bare = self._outputs(spec["outputs"])
        name = metadata["name"].text("the name")
        with metadata["name"].blamed():
            check_name(name, "a workflow")
        try:
            return build(
                name,
                inputs=[input_of(key, node) for key, node in entries(spec, "inputs").items()],
                stages=stages.values(),
                outputs=outputs,
                bare=bare,
                models={key: model_of(key, node) for key, node in entries(spec, "models").items()},
                serve=serve_of(spec["serve"]) if "serve" in spec else None,
                description=description(metadata),
            )
        except GraphError as error:
            blamed = _blamed(spec, error)
            raise blamed.error(error.message, error.hint, **error.details) from None

    def _stage(self, id: str, node: Node) -> Stage:
        fields = node.fields(f"stage {id!r}", ("uses", "with", "timeout", "retry"), ("uses",))
        function = self._function(fields["uses"])
        policy = function.policy
        if "timeout" in fields:
            with fields["timeout"].blamed():
                policy = policy.override(timeout=parse_seconds(fields["timeout"].value))
        if "retry" in fields:
            retry = fields["retry"].fields("retry", ("attempts",), ("attempts",))
            attempts = retry["attempts"].integer("attempts", 1, MAX_ATTEMPTS)
            policy = policy.override(attempts=attempts)
        bindings = {}
        for name, value in entries(fields, "with").items():
            parameter = function.parameter(name)
            template = parameter is not None and dt.accepts(parameter.type, "template")
            bindings[name] = self._template(value) if template else _binding(value)
        return Stage(id, function, bindings, policy)

    def _function(self, node: Node) -> Function:
        uses = node.text("uses")
        if not uses.startswith("py:"):
            if uses in self.registry:
                return self.registry[uses]
            raise node.error(
                f"there is no function {uses[:80]!r}",
                suggest(uses, self.registry) + '; your own are written "py:module:name"',
            )
        match = _PY.fullmatch(uses)
        if match is None:
            raise node.error(f"{uses[:80]!r} is not py:module:name")
        module, name = match.groups()
        if self.import_function is None or not self.is_allowed(module):
            raise node.error(
                f"functions of the module {module!r} are not allowed here",
                "add it to allowed_modules in the settings",
            )
        return self._imported(node, module, name)

    def _imported(self, node: Node, module: str, name: str) -> Function:
        if self.import_function is None:
            raise node.error("functions in Python are not allowed here")
        try:
            found = self.import_function(module, name)
        except AdjoinError as error:
            raise node.error(str(error)) from error
        except Exception as error:
            raise node.error(
                f"{module}:{name} cannot be imported: {type(error).__name__}: {error}",
                "check the names, and that the module is on Python's path",
            ) from error
        if not isinstance(found, Function):
            raise node.error(
                f"{module}:{name} is a {type(found).__name__}, not a function of a workflow",
                "decorate it with @adjoin.function",
            )
        return found

    def _template(self, node: Node) -> Binding:
        if not isinstance(node.value, dict):
            return _binding(node)
        fields = node.fields("a template", ("file", "text"))
        if len(fields) != 1:
            raise node.error("a template is either {file: …} or {text: …}")
        if "text" in fields:
            return Template(fields["text"].text("text"))
        name = fields["file"].text("file")
        if self.directory is None:
            raise fields["file"].error(
                "template files cannot be read here", "write the template into the workflow"
            )
        with fields["file"].blamed():
            return read_confined(name, self.directory)

    def _outputs(self, node: Node) -> tuple[dict[str, Binding], bool]:
        if not isinstance(node.value, dict):
            return {"output": _binding(node)}, True
        if not node.value:
            raise node.error("a workflow has at least one output")
        return {key: _binding(each) for key, each in node.value.items()}, False


# --- parts --------------------------------------------------------------------------------------


def _constant(node: Node, key: str, value: str) -> None:
    if node.value != value:
        raise node.error(f"{key} must be {value}")


def _binding(node: Node) -> Binding:
    if isinstance(node.value, dict):
        return container({key: _binding(each) for key, each in node.value.items()})
    if isinstance(node.value, list):
        return container([_binding(each) for each in node.value])
    with node.blamed():
        return parse_text(node.value) if isinstance(node.value, str) else literal(node.value)


def _blamed(spec: Mapping[str, Node], error: GraphError) -> Node:
    """The node that an error of the graph is about."""
    if (output := error.details.get("output")) is not None:
        return spec["outputs"].mapping("outputs").get(str(output), spec["outputs"])
    stages = spec["stages"]
    stage, argument = error.details.get("stage"), str(error.details.get("argument"))
    if stage is None:
        return stages
    given = stages.mapping("stages")[str(stage)].mapping("a stage").get("with")
    if given is None or argument not in given.value:
        return stages.keys[str(stage)]
    return given.keys[argument] if error.details.get("misnamed") else given.value[argument]
