"""From the name of a workflow's file or module to its Graph.

Whoever runs a file they name trusts the Python beside it, as with ``python app.py``; that is why
``py:`` may name modules of the workflow file's own folder here, and nowhere else.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import operator
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from adjoin.errors import AdjoinError, Conflict, DefinitionError, InputError, NotFound

if TYPE_CHECKING:
    from adjoin.dag import Graph
    from adjoin.settings import Settings

_YAML = (".yaml", ".yml")


def load_graph(target: str, settings: Settings) -> Graph:
    """The graph of ``workflow.yaml``, ``app.py``, ``app.py:name`` or ``module:name``.

    Raises:
        NotFound: there is no such file, module or workflow.
        DefinitionError: the workflow or one of its prompt templates is wrong, or the module raises
            when it is imported.
    """
    graph = _load(target, settings)
    _check_templates(graph, target)
    return graph


def load_text(text: str, settings: Settings, *, file: str = "workflow") -> Graph:
    """The graph of a YAML or JSON text from elsewhere: ``py:`` names modules of the settings'
    ``allowed_modules`` only, and templates are written out.

    Raises:
        DefinitionError: the text or one of its prompt templates is wrong.
    """
    from adjoin.dag import load_yaml
    from adjoin.functions import BUILTINS

    def import_function(module: str, qualname: str) -> Any:
        return operator.attrgetter(qualname)(importlib.import_module(module))

    graph = load_yaml(
        text,
        file=file,
        registry=BUILTINS,
        import_function=import_function,
        allowed_modules=settings.allowed_modules,
    )
    _check_templates(graph, file)
    return graph


def _load(target: str, settings: Settings) -> Graph:
    path = Path(target)
    if path.suffix.lower() in _YAML:
        return _load_yaml(path, settings)
    file, _, name = target.partition(":")
    if file.endswith(".py"):
        return _load_python(Path(file), name)
    if name and not path.exists():
        return _workflow(_import_installed(file), name, target)
    raise NotFound(
        "not a workflow" if path.exists() else "there is no such workflow",
        where=target,
        hint="name a .yaml file, app.py, app.py:name or module:name",
    )


def _check_templates(graph: Graph, target: str) -> None:
    """What a template may say is the functions' to know; better now than when its stage runs."""
    from adjoin.dag import Template
    from adjoin.functions.builtin.template import check_template

    for stage in graph.stages:
        if stage.function.graph is not None:
            _check_templates(stage.function.graph, target)
        template = stage.bindings.get("template")
        if stage.function.ref != "prompt" or not isinstance(template, Template):
            continue
        try:
            check_template(template.text, stage.bindings.keys() - {"template"})
        except InputError as error:
            place = f", {error.where}" if error.where else ""
            raise DefinitionError(
                f"stage {stage.id!r}{place}: {error.message}", where=target, hint=error.hint
            ) from None


def _load_yaml(path: Path, settings: Settings) -> Graph:
    from adjoin.dag import load
    from adjoin.functions import BUILTINS

    beside = Beside(path.parent)
    allowed = frozenset(settings.allowed_modules)

    def import_function(module: str, qualname: str) -> Any:
        found = beside.module(module) if module in beside else importlib.import_module(module)
        return operator.attrgetter(qualname)(found)

    return load(
        path,
        registry=BUILTINS,
        import_function=import_function,
        allowed_modules=lambda module: module in allowed or module in beside,
    )


def _load_python(path: Path, name: str) -> Graph:
    if not path.is_file():
        raise NotFound("there is no such file", where=str(path))
    if not path.stem.isidentifier():
        raise DefinitionError("its name cannot be a module's", where=str(path), hint="rename it")
    return _workflow(Beside(path.parent).module(path.stem), name, str(path))


def _workflow(module: ModuleType, name: str, where: str) -> Graph:
    from adjoin.dag import Graph, Workflow
    from adjoin.dag.names import suggest

    found = {
        key: value for key, value in vars(module).items() if isinstance(value, Workflow | Graph)
    }
    if not found:
        raise NotFound(
            f"module {module.__name__!r} has no workflow",
            where=where,
            hint="decorate a function with @adjoin.workflow",
        )
    if not name and len(found) > 1:
        raise NotFound(
            "there are several workflows", where=where, hint=f"name one: {', '.join(sorted(found))}"
        )
    if name and name not in found:
        raise NotFound(
            f"module {module.__name__!r} has no workflow {name!r}",
            where=where,
            hint=suggest(name, found),
        )
    chosen = found[name] if name else next(iter(found.values()))
    return chosen if isinstance(chosen, Graph) else chosen.graph


def _import_installed(name: str) -> ModuleType:
    """A module on Python's path or in the working directory."""
    here = Beside(Path.cwd())
    if name in here:
        return here.module(name)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _broken(name, error) from error
        raise NotFound(
            f"there is no module {name!r}",
            hint="install it, or run this where it lies",
        ) from None
    except Exception as error:
        raise _broken(name, error) from error
    return module


class Beside:
    """The Python modules of one folder, imported as ``python app.py`` in it would find them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def __contains__(self, module: object) -> bool:
        if not isinstance(module, str):
            return False
        top = module.partition(".")[0]
        file, package = self._folder / f"{top}.py", self._folder / top / "__init__.py"
        return file.is_file() or package.is_file()

    def module(self, name: str) -> ModuleType:
        """Import it; its functions, and those of its neighbours, will travel by value.

        Raises:
            Conflict: another module of that name is in use.
            DefinitionError: the module raises.
        """
        before = set(sys.modules)
        top = name.partition(".")[0]
        try:
            self._import_top(top)
            module = importlib.import_module(name)
        except AdjoinError:
            raise
        except Exception as error:
            raise _broken(name, error) from error
        _ship_by_value(sys.modules[new] for new in set(sys.modules) - before)
        return module

    def _import_top(self, top: str) -> None:
        # Found in this folder and nowhere else: an installed module of the same name never runs.
        spec = importlib.machinery.PathFinder.find_spec(top, [str(self._folder)])
        if spec is None or spec.loader is None or spec.origin is None:
            raise NotFound(f"there is no module {top!r}", where=str(self._folder))
        known = sys.modules.get(top)
        if known is not None and getattr(known, "__file__", None) == spec.origin:
            return
        if known is not None or top in sys.stdlib_module_names:
            taken = getattr(known, "__file__", None) or "the standard library"
            raise Conflict(
                f"the module name {top!r} is taken by {taken}",
                where=spec.origin,
                hint="rename the file",
            )
        if str(self._folder) not in sys.path:
            sys.path.insert(0, str(self._folder))
        module = importlib.util.module_from_spec(spec)
        sys.modules[top] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[top]
            raise


def _ship_by_value(modules: Iterable[ModuleType]) -> None:
    """Workers cannot import what is not installed, so those functions go as code."""
    import cloudpickle

    paths = sysconfig.get_paths()
    installed = [Path(paths[key]).resolve() for key in ("stdlib", "purelib", "platlib")]
    for module in modules:
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or module.__name__.partition(".")[0] == "adjoin":
            continue
        path = Path(file).resolve()
        if not any(path.is_relative_to(root) for root in installed):
            cloudpickle.register_pickle_by_value(module)


def _broken(module: str, error: Exception) -> DefinitionError:
    """What a module raised, with the line of the module's own code that did."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [frame for frame in frames if not frame.filename.startswith("<frozen")]
    place = f"{where[-1].filename}:{where[-1].lineno}" if where else ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}:{error.lineno}"
    return DefinitionError(
        f"module {module!r} cannot be imported: {type(error).__name__}: {error}", where=place
    )
