"""From a Python function to a Graph, by calling it once with symbols in place of values."""

from __future__ import annotations

import functools
import inspect
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, overload

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import Template, hints_of
from adjoin.dag.binding import Binding, Reference, container, literal
from adjoin.dag.build import build, signature
from adjoin.dag.classes import is_data_class, json_schema_of
from adjoin.dag.function import Function, Use, tracing
from adjoin.dag.graph import Graph, ModelSpec, Serve, Stage
from adjoin.dag.names import INPUTS, RESERVED, check_name
from adjoin.dag.parameter import Parameter
from adjoin.dag.source import assigned_name, caller, location
from adjoin.dag.symbol import Symbol
from adjoin.dag.templates import read_template
from adjoin.errors import AdjoinError, DefinitionError, GraphError


class _Trace:
    """Records the stages of one workflow while its function runs."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.stages: dict[str, Stage] = {}
        self.places: dict[str, str] = {}

    def add(
        self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], use: Use
    ) -> Symbol:
        frame = caller()
        place = location(frame)
        id = use.id or self._free(assigned_name(frame) or function.name)
        if id in self.stages:
            raise GraphError(f"two stages are called {id!r}", where=place, hint="rename one")
        bindings = {}
        for name, value in _by_name(function, args, kwargs, id, place).items():
            parameter = function.parameter(name)
            template = parameter is not None and dt.accepts(parameter.type, "template")
            bindings[name] = self._template(value, place) if template else self.bind(value, place)
        stage = self.stages[id] = Stage(id, function, bindings, use.policy)
        self.places[id] = place
        try:
            return Symbol(Reference(id), stage.returns)
        except GraphError as error:
            error.where = place
            raise

    def _free(self, name: str) -> str:
        """The name itself, or with the first number from 2 that makes it a new one."""
        name = f"{name}_" if name in RESERVED or name == INPUTS else name
        found, number = name, 2
        while found in self.stages:
            found, number = f"{name}_{number}", number + 1
        return found

    def _template(self, value: Any, place: str) -> Binding:
        if isinstance(value, Path):
            return read_template(value, self.base)
        return value if isinstance(value, Template) else self.bind(value, place)

    def bind(self, value: Any, place: str) -> Binding:
        """What an argument or a returned value stands for in the graph."""
        if isinstance(value, Symbol):
            return value._reference
        if isinstance(value, Path | Template):
            raise GraphError(
                f"a {type(value).__name__} is only taken where a function wants a template",
                where=place,
                hint="pass str(path) for the name of a file",
            )
        try:
            if isinstance(value, list | tuple):
                return container([self.bind(item, place) for item in value])
            if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
                return container({key: self.bind(item, place) for key, item in value.items()})
            if is_data_class(value):
                return literal(json_schema_of(value))
            return literal(value)
        except GraphError as error:
            error.where = error.where or place
            raise
        except RecursionError:
            raise GraphError("a constant is nested too deeply", where=place) from None


def _by_name(
    function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], id: str, place: str
) -> dict[str, Any]:
    names = [parameter.name for parameter in function.parameters]
    given = dict(zip(names, args, strict=False))
    doubled = [name for name in kwargs if name in given]
    if len(args) > len(names) or doubled:
        what = f"{doubled[0]!r} twice" if doubled else f"{len(args)} arguments"
        raise GraphError(
            f"stage {id!r}: {function.name!r} is given {what}",
            where=place,
            hint=f"it takes {signature(function)}",
        )
    return {**given, **kwargs}


class Workflow:
    """A Python function that says how functions are connected; see :func:`workflow`.

    Attributes:
        graph: what the function says; it is called once, when this is first asked for.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        *,
        name: str = "",
        models: Mapping[str, ModelSpec | str] | None = None,
        serve: Serve | None = None,
    ) -> None:
        if not inspect.isfunction(call) or inspect.iscoroutinefunction(call):
            raise DefinitionError(f"{call!r} is not a plain Python function", hint="decorate a def")
        self.name = check_name(name or call.__name__, "a workflow")
        self.models = {
            key: ModelSpec(source=spec) if isinstance(spec, str) else spec
            for key, spec in (models or {}).items()
        }
        self.serve = serve
        self._call = call
        frame = caller()
        # classes defined beside a workflow inside of a function; others are found in its module
        self._local = {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)
        self._lock = threading.Lock()
        functools.update_wrapper(self, call)

    def __repr__(self) -> str:
        return f"<Workflow {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise DefinitionError(
            f"workflow {self.name!r} was called",
            where=location(caller()),
            hint=f"run it: adjoin.Runtime().run({self._call.__name__}, …)",
        )

    def _repr_html_(self) -> str:
        return self.graph._repr_html_()

    @property
    def graph(self) -> Graph:
        """Raises :class:`GraphError`, with file and line, when the workflow is wrong."""
        with self._lock:
            if "_graph" not in self.__dict__:
                self._graph = self._traced()
                self._local = {}
            return self._graph

    def _traced(self) -> Graph:
        hints = hints_of(self._call, self._local)
        inputs = [
            _input(self._call, parameter, hints)
            for parameter in inspect.signature(self._call).parameters.values()
        ]
        trace = _Trace(_folder(self._call))
        symbols = {each.name: Symbol(Reference(INPUTS, (each.name,)), each.type) for each in inputs}
        outputs, bare = self._outputs(trace, self._run(trace, symbols))
        try:
            return build(
                self.name,
                inputs=inputs,
                stages=trace.stages.values(),
                outputs=outputs,
                bare=bare,
                models=self.models,
                serve=self.serve,
                description=(inspect.getdoc(self._call) or "").partition("\n\n")[0],
            )
        except GraphError as error:
            error.where = trace.places.get(str(error.details.get("stage")), self._place())
            raise

    def _run(self, trace: _Trace, symbols: dict[str, Symbol]) -> Any:
        token = tracing.set(trace)
        try:
            return self._call(**symbols)
        except AdjoinError:
            raise
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1]
            raise GraphError(
                f"workflow {self.name!r} cannot be read: {type(error).__name__}: {error}",
                where=f"{line.filename}:{line.lineno}",
                hint="a workflow only connects functions; it runs once, without values",
            ) from error
        finally:
            tracing.reset(token)

    def _outputs(self, trace: _Trace, result: Any) -> tuple[dict[str, Binding], bool]:
        place = self._place()
        if result is None:
            raise GraphError(
                f"workflow {self.name!r} returns nothing",
                where=place,
                hint="return a result, or a dict of them by name",
            )
        if not isinstance(result, dict):
            return {"output": trace.bind(result, place)}, True
        if not result or not all(isinstance(key, str) for key in result):
            raise GraphError("outputs are named by texts", where=place, hint='{"answer": answer}')
        return {key: trace.bind(value, place) for key, value in result.items()}, False

    def _place(self) -> str:
        code = self._call.__code__
        return f"{code.co_filename}:{code.co_firstlineno}"


def _input(
    call: Callable[..., Any], parameter: inspect.Parameter, hints: dict[str, Any]
) -> Parameter:
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        raise DefinitionError(
            f"workflow {call.__name__!r} takes {parameter}", hint="name each input"
        )
    annotation = hints.get(parameter.name, inspect.Parameter.empty)
    return Parameter.of(check_name(parameter.name, "an input"), annotation, parameter.default)


def _folder(call: Callable[..., Any]) -> Path:
    """Where template files are looked for: beside the workflow; a notebook's is the current one."""
    file = Path(inspect.unwrap(call).__code__.co_filename)
    return file.parent.resolve() if file.is_file() else Path.cwd()


@overload
def workflow(call: Callable[..., Any], /) -> Workflow: ...


@overload
def workflow(
    *,
    name: str = ...,
    models: Mapping[str, ModelSpec | str] | None = ...,
    serve: Serve | None = ...,
) -> Callable[[Callable[..., Any]], Workflow]: ...


def workflow(
    call: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    models: Mapping[str, ModelSpec | str] | None = None,
    serve: Serve | None = None,
) -> Workflow | Callable[[Callable[..., Any]], Workflow]:
    """Make a Python function a workflow: its parameters are inputs, its calls of functions stages.

    A stage is called like the variable that its result is assigned to, else like its function;
    the second one ``name_2``, and so on. It returns one result, or a dict of results by name.

    Args:
        name: default is the function's own.
        models: names for models with their settings; a text is a source.
        serve: how the workflow is served.

    Raises:
        DefinitionError: the signature cannot be used. What is wrong inside is raised by ``.graph``.
    """

    def decorate(call: Callable[..., Any]) -> Workflow:
        return Workflow(call, name=name, models=models, serve=serve)

    return decorate if call is None else decorate(call)
