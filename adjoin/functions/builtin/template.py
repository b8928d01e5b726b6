"""Prompt templates: checked and compiled once, rendered with bounds on time and size."""

from __future__ import annotations

import difflib
import functools
import re
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
import msgspec
from jinja2 import meta, nodes

from adjoin.errors import InputError
from adjoin.functions.builtin.sandbox import (
    MAX_SECONDS,
    Budget,
    Guard,
    Spent,
    budget,
    environment,
)

MAX_TEMPLATE = 262_144  # characters
MAX_OUTPUT = 2_000_000  # characters
_BOUNDS = f"shorten its loops; it may print {MAX_OUTPUT} characters and take {MAX_SECONDS:g} s"
_FILE = "<template>"


class Compiled(msgspec.Struct, frozen=True):
    """``variables`` are the names that the template cannot do without."""

    template: jinja2.Template
    variables: frozenset[str]


@functools.lru_cache(maxsize=256)
def compile_template(text: str) -> Compiled:
    """Check and compile a template.

    Raises:
        InputError: it is too long, not Jinja, or uses what prompt templates do not have; with line.
    """
    if len(text) > MAX_TEMPLATE:
        raise InputError(f"the template is longer than {MAX_TEMPLATE} characters")
    jinja = environment()
    try:
        tree = jinja.parse(text)
        variables = meta.find_undeclared_variables(tree) - jinja.globals.keys() - _optional(tree)
        code = jinja.compile(Guard().visit(tree), filename=_FILE)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(
            (error.message or "it is not a template").rstrip("."),
            where=f"{_where(text)}, line {error.lineno}",
            hint="prompt templates have {{ … }}, {% if %}, {% for %}, {% set %} and plain filters",
        ) from None
    except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError):
        raise InputError("the template is nested too deeply", where=_where(text)) from None
    template = jinja.template_class.from_code(jinja, code, jinja.globals)
    return Compiled(template, frozenset(variables))


def _optional(tree: nodes.Template) -> set[str]:
    """Names that the template asks about, or has a default for."""
    asked = {"defined", "undefined", "default", "d"}
    found = tree.find_all((nodes.Test, nodes.Filter))
    return {
        each.node.name for each in found if each.name in asked and isinstance(each.node, nodes.Name)
    }


def check_template(text: str, given: Iterable[str]) -> None:
    """Check a template against the variables it will be given, before anything runs.

    Raises:
        InputError: it does not compile, or reads a variable that is not given.
    """
    names = set(given)
    for name in sorted(compile_template(text).variables - names):
        raise _undefined(text, name, names)


def render(text: str, variables: Mapping[str, Any]) -> str:
    """The prompt.

    Raises:
        InputError: a variable is missing, something is not allowed, or a bound was passed: of the
            output (:data:`MAX_OUTPUT`), of time (:data:`MAX_SECONDS`), or of work.
    """
    for name in variables:
        if name.startswith("_"):
            raise InputError(f"the variable {name!r} is private", hint="rename it")
    template = compile_template(text).template
    token = budget.set(Budget())
    try:
        return _collect(template, variables)
    except jinja2.UndefinedError as error:
        if match := re.fullmatch(r"'(\w+)' is undefined", str(error)):
            raise _undefined(text, match[1], variables, error) from None
        raise _failed(text, str(error), error) from None
    except (Spent, MemoryError) as error:
        raise _failed(text, "it makes too much or takes too long", error) from None
    except Exception as error:  # noqa: BLE001 - wrong types and arguments inside the template
        raise _failed(text, str(error) or type(error).__name__, error) from None
    finally:
        budget.reset(token)


def _collect(template: jinja2.Template, variables: Mapping[str, Any]) -> str:
    parts, length = [], 0
    for part in template.generate(variables):
        length += len(part)
        if length > MAX_OUTPUT:
            raise Spent
        parts.append(part)
    return "".join(parts)


def _undefined(
    text: str, name: str, given: Iterable[str], error: BaseException | None = None
) -> InputError:
    names = sorted(given)
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return InputError(
        f"the variable {name!r} is not given",
        where=_where(text, error),
        hint=f"{guess}given are: {', '.join(names) or 'none'}",
    )


def _failed(text: str, reason: str, error: BaseException) -> InputError:
    return InputError(
        f"the template cannot be rendered: {reason[:500].rstrip('.')}",
        where=_where(text, error),
        hint=_BOUNDS if isinstance(error, Spent) else "",
    )


def _where(text: str, error: BaseException | None = None) -> str:
    """The template by how it begins, and the line that failed."""
    begin = " ".join(text[:200].split())
    shown = begin if len(begin) <= 40 else f"{begin[:40]}…"
    place = f"template {shown!r}"
    frames = traceback.extract_tb(error.__traceback__) if error else []
    lines = [frame.lineno for frame in frames if frame.filename == _FILE]
    return f"{place}, line {lines[-1]}" if lines else place
