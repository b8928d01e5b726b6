"""From a workflow's YAML text to a Graph; errors carry file, line and column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adjoin.dag.binding import Binding
from adjoin.dag.build import build
from adjoin.dag.function import Function
from adjoin.dag.graph import Graph
from adjoin.dag.names import check_name
from adjoin.dag.nested import MAX_NESTING, as_function
from adjoin.dag.stage import Stage
from adjoin.dag.yaml_functions import AllowedModules, Functions, ImportFunction
from adjoin.dag.yaml_nodes import Node, parse
from adjoin.dag.yaml_parts import description, entries, input_of, model_of, serve_of
from adjoin.dag.yaml_stage import KEYS, binding_of, stage_of
from adjoin.errors import GraphError, NotFound, YamlError

API_VERSION = "adjoin/v1"
KIND = "Workflow"


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
    functions = Functions(registry, import_function, allowed_modules)
    return _Loader(functions, directory).graph(parse(text, file))


class _Loader:
    """Reads the workflow of one text, and those that it uses as functions."""

    def __init__(self, functions: Functions, directory: Path | None) -> None:
        self.functions = functions
        self.directory = directory
        self.workflows: dict[str, Node] = {}
        self.built: dict[str, Function] = {}
        self.opened: list[str] = []

    def graph(self, root: Node) -> Graph:
        keys = ("apiVersion", "kind", "metadata", "spec")
        top = root.fields("a workflow", keys, keys)
        _constant(top["apiVersion"], "apiVersion", API_VERSION)
        _constant(top["kind"], "kind", KIND)
        metadata = top["metadata"].fields("metadata", ("name", "description"), ("name",))
        name = metadata["name"].text("the name")
        with metadata["name"].blamed():
            check_name(name, "a workflow")
        spec = top["spec"].fields(
            "spec",
            ("inputs", "models", "workflows", "stages", "outputs", "serve"),
            ("stages", "outputs"),
        )
        self._declare(spec)
        graph = self._build(name, spec, description(metadata))
        for unused in self.workflows.keys() - self.built.keys():
            key = spec["workflows"].keys[unused]
            raise key.error(f"nothing uses the workflow {unused!r}", "use it, or remove it")
        return graph

    def _declare(self, spec: Mapping[str, Node]) -> None:
        self.workflows = dict(entries(spec, "workflows"))
        for name in self.workflows:
            key = spec["workflows"].keys[name]
            with key.blamed():
                check_name(name, "a workflow")
            if name in self.functions.registry:
                raise key.error(f"{name!r} is a built-in function, too", "rename the workflow")

    def _build(self, name: str, spec: Mapping[str, Node], about: str) -> Graph:
        stages = {key: self._stage(key, node) for key, node in entries(spec, "stages").items()}
        outputs, bare = _outputs(spec["outputs"])
        try:
            return build(
                name,
                inputs=[input_of(key, node) for key, node in entries(spec, "inputs").items()],
                stages=stages.values(),
                outputs=outputs,
                bare=bare,
                models={key: model_of(key, node) for key, node in entries(spec, "models").items()},
                serve=serve_of(spec["serve"]) if "serve" in spec else None,
                description=about,
            )
        except GraphError as error:
            blamed = _blamed(spec, error)
            raise blamed.error(error.message, error.hint, **error.details) from None

    def _stage(self, id: str, node: Node) -> Stage:
        fields = node.fields(f"stage {id!r}", KEYS, ("uses",))
        return stage_of(id, fields, self._function(fields["uses"]), self.directory)

    def _function(self, node: Node) -> Function:
        name = node.text("uses")
        if name not in self.workflows:
            return self.functions.find(node, self.workflows)
        if name in self.opened:
            raise node.error(
                f"the workflow {name!r} uses itself", "repeat it with a bound: repeat: {until, max}"
            )
        if len(self.opened) >= MAX_NESTING:
            raise node.error(f"workflows are nested more than {MAX_NESTING} levels deep")
        if name not in self.built:
            self.opened.append(name)
            self.built[name] = as_function(self._nested(name, self.workflows[name]))
            self.opened.pop()
        return self.built[name]

    def _nested(self, name: str, node: Node) -> Graph:
        spec = node.fields(
            f"workflow {name!r}",
            ("description", "inputs", "models", "stages", "outputs"),
            ("stages", "outputs"),
        )
        return self._build(name, spec, description(spec))


# --- parts --------------------------------------------------------------------------------------


def _constant(node: Node, key: str, value: str) -> None:
    if node.value != value:
        raise node.error(f"{key} must be {value}")


def _outputs(node: Node) -> tuple[dict[str, Binding], bool]:
    if not isinstance(node.value, dict):
        return {"output": binding_of(node)}, True
    if not node.value:
        raise node.error("a workflow has at least one output")
    return {key: binding_of(each) for key, each in node.value.items()}, False


def _blamed(spec: Mapping[str, Node], error: GraphError) -> Node:
    """The node that an error of the graph is about."""
    if (output := error.details.get("output")) is not None:
        outputs = spec["outputs"]
        return outputs.value[output] if isinstance(outputs.value, dict) else outputs
    stages = spec["stages"]
    if (stage := error.details.get("stage")) is None:
        return stages
    fields = stages.mapping("stages")[str(stage)].mapping("a stage")
    if (construct := error.details.get("construct")) is not None:
        return fields[str(construct)]
    given, argument = fields.get("with"), str(error.details.get("argument"))
    if given is None or argument not in given.value:
        return stages.keys[str(stage)]
    return given.keys[argument] if error.details.get("misnamed") else given.value[argument]
