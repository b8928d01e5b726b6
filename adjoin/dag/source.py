"""Where a Python function is, under a name and with a digest that all processes agree on."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_HERE = f"{Path(__file__).parent}{os.sep}"


def module_of(call: Callable[..., Any]) -> str:
    """The module's name; a program goes by its file's stem, as an import would name it."""
    name = call.__module__
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:  # python -m package.module
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file and Path(file).is_file() else name


def digest_of(call: Callable[..., Any]) -> str:
    """sha256 of the source with its decorators, or of the code where there is no source.

    Plain values that the function closes over count, as they change what it does.
    """
    digest = hashlib.sha256()
    try:
        digest.update(textwrap.dedent(inspect.getsource(call)).strip().encode())
    except (OSError, TypeError):
        _update(digest, call.__code__)
    cells = inspect.getclosurevars(call).nonlocals
    for name in sorted(cells):
        value = cells[name]
        plain = value is None or isinstance(value, str | bytes | int | float | bool)
        shown = repr(value) if plain else getattr(value, "__qualname__", type(value).__qualname__)
        digest.update(f"\0{name}={shown}".encode())
    return digest.hexdigest()


def _update(digest: Any, code: CodeType) -> None:
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _update(digest, constant)
        else:
            digest.update(repr(constant).encode())


def caller() -> FrameType:
    """The innermost frame outside of this package: where the user's code is."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_HERE) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def location(frame: FrameType) -> str:
    """``file:line`` of a frame; the file relative to the working directory where it is inside."""
    path = Path(frame.f_code.co_filename)
    try:
        shown = path.relative_to(Path.cwd())
    except ValueError:
        shown = path
    return f"{shown}:{frame.f_lineno}"


def assigned_name(frame: FrameType) -> str:
    """The variable that the call which the frame is executing is assigned to; empty when none is.

    ``answer = generate(…)`` gives ``answer``; ``f(generate(…))`` and ``a, b = f()`` give nothing.
    """
    positions = list(frame.f_code.co_positions())
    _, end_line, _, end_column = positions[frame.f_lasti // 2]
    return _assignments(frame.f_code).get((end_line, end_column), "")


@functools.lru_cache(maxsize=256)
def _assignments(code: CodeType) -> dict[tuple[int | None, int | None], str]:
    """The target of each call that is assigned to one name, by where the call ends."""
    try:
        lines, first = inspect.getsourcelines(code)
    except (OSError, TypeError):
        return {}
    # An indented function parses under a condition of its own; columns then stay what they are.
    if lines[0][:1].isspace():
        lines, first = ["if True:\n", *lines], first - 1
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        return {}
    found: dict[tuple[int | None, int | None], str] = {}
    for node in ast.walk(tree):
        target, value = _assignment(node)
        if isinstance(target, ast.Name) and isinstance(value, ast.Call):
            end = (value.end_lineno or 0) + max(first, 1) - 1
            found[end, value.end_col_offset] = target.id
    return found


def _assignment(node: ast.AST) -> tuple[ast.expr | None, ast.expr | None]:
    match node:
        case ast.Assign(targets=[target], value=value):
            return target, value
        case ast.AnnAssign(target=target, value=value) | ast.NamedExpr(target=target, value=value):
            return target, value
    return None, None
