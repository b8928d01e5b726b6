"""Inputs of runs, as texts of the command line and as lines of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjoin.cli.options import split_pair
from adjoin.errors import InputError, NotFound

if TYPE_CHECKING:
    from adjoin.dag import Graph


def parse_pairs(graph: Graph, pairs: Sequence[str]) -> dict[str, Any]:
    """Values of ``key=value`` texts, in the types of the workflow's inputs.

    Raises:
        InputError: one is unknown, given twice, or does not fit.
    """
    from adjoin.dag import parse_input
    from adjoin.dag.names import suggest

    known = {parameter.name: parameter for parameter in graph.inputs}
    found: dict[str, Any] = {}
    for pair in pairs:
        key, text = split_pair(pair, "an input")
        if key not in known:
            raise InputError(
                f"workflow {graph.name!r} has no input {key!r}", hint=suggest(key, known)
            )
        if key in found:
            raise InputError(f"input {key!r} is given twice")
        found[key] = parse_input(known[key], text)
    return found


def read_lines(graph: Graph, path: Path, defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The inputs of many runs, one JSON object a line; all are checked before anything runs.

    Args:
        path: ``-`` is stdin.
        defaults: values for inputs that a line leaves out.

    Raises:
        NotFound: the file cannot be read.
        InputError: a line is wrong, and which; or there is none.
    """
    found = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InputError(f"not JSON: {error}", where=where) from None
        if not isinstance(values, dict):
            raise InputError(
                "not a JSON object", where=where, hint='write {"question": "…"} on each line'
            )
        try:
            graph.check_inputs({**defaults, **values})
        except InputError as error:
            raise InputError(str(error), where=where) from None
        found.append({**defaults, **values})
    if not found:
        raise InputError(
            "there are no inputs", where=str(path), hint="write one JSON object a line"
        )
    return found


def read_text(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise NotFound(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except UnicodeDecodeError:
        raise InputError("the text is not UTF-8", where=str(path)) from None
