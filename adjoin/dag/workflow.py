"""Workflows in Python: a function that is called once, with symbols in place of values."""

from __future__ import annotations

import functools
import inspect
import threading
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Unpack, overload

from adjoin.dag.annotations import hints_of
from adjoin.dag.binding import Binding, Reference
from adjoin.dag.build import build
from adjoin.dag.function import Function, Options, Use, tracing
from adjoin.dag.graph import Graph, ModelSpec, Serve
from adjoin.dag.names import INPUTS, check_name
from adjoin.dag.nested import as_function
from adjoin.dag.parameter import Parameter
from adjoin.dag.source import caller, location
from adjoin.dag.symbol import Symbol
from adjoin.dag.trace import Recorder
from adjoin.errors import AdjoinError, DefinitionError, GraphError

#: One thread traces at a time: workflows within others would else be waited for crosswise.
_LOCK = threading.RLock()
#: The workflows that are being traced, each within the one before.
_opened: ContextVar[tuple[Workflow, ...]] = ContextVar("adjoin_opened", default=())


class Workflow:
    """A Python function that says how functions are connected; see :func:`workflow`.

    Called in another workflow it is one stage of that.

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
        functools.update_wrapper(self, call)

    def __repr__(self) -> str:
        return f"<Workflow {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.options()(*args, **kwargs)

    def options(self, **options: Unpack[Options]) -> Use:
        """This workflow for one stage of another; see :class:`adjoin.dag.function.Options`."""
        if tracing.get() is None:
            raise DefinitionError(
                f"workflow {self.name!r} was called",
                where=location(caller()),
                hint=f"run it: adjoin.Runtime().run({self._call.__name__}, …)",
            )
        return Use.of(self.function, **options)

    def _repr_html_(self) -> str:
        return self.graph._repr_html_()

    @property
    def function(self) -> Function:
        """The function that a stage of another workflow uses."""
        return as_function(self.graph, self.name)

    @property
    def graph(self) -> Graph:
        """Raises :class:`GraphError`, with file and line, when the workflow is wrong."""
        if self in (opened := _opened.get()):
            raise GraphError(
                f"workflow {self.name!r} uses itself",
                where=location(caller()),
                hint="repeat it with a bound: .options(repeat=adjoin.until(…))",
            )
        with _LOCK:
            if "_graph" not in self.__dict__:
                token = _opened.set((*opened, self))
                try:
                    self._graph = self._traced()
                finally:
                    _opened.reset(token)
                self._local = {}
            return self._graph

    def _traced(self) -> Graph:
        hints = hints_of(self._call, self._local)
        inputs = [
            _input(self._call, parameter, hints)
            for parameter in inspect.signature(self._call).parameters.values()
        ]
        trace = Recorder(_folder(self._call))
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

    def _run(self, trace: Recorder, symbols: dict[str, Symbol]) -> Any:
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

    def _outputs(self, trace: Recorder, result: Any) -> tuple[dict[str, Binding], bool]:
        place = self._place()
        if result is None:
            raise GraphError(
                f"workflow {self.name!r} returns nothing",
                where=place,
                hint="return a result, or a dict of them by name",
            )
        trace.require_no_elements(result, place)
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
