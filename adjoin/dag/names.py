"""Names of inputs, stages and outputs, suggestions for mistyped ones, and durations."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from adjoin.errors import DefinitionError, GraphError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
#: Words that CEL keeps for itself: a reference to a stage so named could not be an expression.
RESERVED = frozenset(
    {"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in"}
    | {"let", "loop", "namespace", "null", "package", "return", "true", "var", "void", "while"}
)
#: The root of references to the workflow's inputs.
INPUTS = "inputs"

_DURATION = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_SECONDS = 86_400.0


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one, or the list of them."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not options:
        return ""
    shown = ", ".join(options[:12]) + (", …" if len(options) > 12 else "")
    return f"known: {shown}"


def check_name(name: str, what: str, **details: str) -> str:
    """Return ``name``, or raise :class:`GraphError` when it can name nothing."""
    if not NAME.fullmatch(name):
        raise GraphError(
            f"{name[:80]!r} cannot name {what}",
            hint="use up to 64 letters, digits and underscores, not starting with a digit",
            **details,
        )
    return name


def check_stage_id(name: str) -> str:
    """Like :func:`check_name`; a stage may also not take a word that expressions use."""
    check_name(name, "a stage", stage=name)
    if name in RESERVED or name == INPUTS:
        raise GraphError(
            f"{name!r} cannot name a stage: expressions use that word",
            hint="rename it",
            stage=name,
        )
    return name


def parse_seconds(value: object) -> float:
    """Seconds from a number or a text such as ``"30s"``, ``"250ms"``, ``"5m"``, ``"1h"``.

    Raises:
        DefinitionError: it is no duration, or not within (0, 24 h].
    """
    seconds: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        seconds = float(match[1]) * _UNITS[match[2]]
    if seconds is None or not 0 < seconds <= MAX_SECONDS:
        raise DefinitionError(
            f"{str(value)[:40]!r} is not a duration",
            hint='write seconds or a text such as "30s", "250ms" or "5m", at most 24 hours',
        )
    return seconds


def format_seconds(seconds: float) -> str:
    """The inverse of :func:`parse_seconds`."""
    text = repr(seconds)
    return f"{text.removesuffix('.0')}s"
