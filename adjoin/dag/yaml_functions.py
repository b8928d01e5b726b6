"""Which function a stage of a YAML text uses: a built-in one, or one in Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from adjoin.dag.function import Function
from adjoin.dag.names import suggest
from adjoin.dag.yaml_nodes import Node
from adjoin.errors import AdjoinError

#: Gives what a module has under a qualified name; raises what importing raises.
ImportFunction: TypeAlias = Callable[[str, str], Any]
#: Which modules ``py:`` may name: these, or those for which it returns true.
AllowedModules: TypeAlias = Collection[str] | Callable[[str], bool]

_PY = re.compile(r"py:([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


class Functions:
    """The functions that a text may use beside the workflows in it."""

    def __init__(
        self,
        registry: Mapping[str, Function],
        import_function: ImportFunction | None,
        allowed_modules: AllowedModules,
    ) -> None:
        self.registry = registry
        self.import_function = import_function
        if callable(allowed_modules):
            self.is_allowed = allowed_modules
        else:
            one = isinstance(allowed_modules, str)
            self.is_allowed = frozenset([allowed_modules] if one else allowed_modules).__contains__

    def find(self, node: Node, local: Collection[str]) -> Function:
        """The function that a node names; ``local`` are the names of workflows beside it."""
        uses = node.text("uses")
        if not uses.startswith("py:"):
            if uses in self.registry:
                return self.registry[uses]
            raise node.error(
                f"there is no function {uses[:80]!r}",
                suggest(uses, [*local, *self.registry]) + '; your own are written "py:module:name"',
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
