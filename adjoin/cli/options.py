"""Options that several commands take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adjoin.errors import InputError

if TYPE_CHECKING:
    from adjoin import Runtime
    from adjoin.settings import Settings

Target = Annotated[
    str,
    typer.Argument(
        metavar="WORKFLOW",
        help="workflow.yaml, app.py[:name] or module:name",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting for this command; repeatable."),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="A running Dask scheduler; default is a cluster of its own."
    ),
]


def split_pair(text: str, what: str) -> tuple[str, str]:
    """``key=value`` as two texts; raises :class:`InputError`."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise InputError(
            f"{text[:60]!r} is not {what}", hint="write key=value, in quotes if it has spaces"
        )
    return key, value


def settings_of(pairs: Sequence[str] | None) -> Settings:
    """The settings in force, with ``key=value`` texts of ``--set`` over them.

    Raises:
        InputError: a key does not exist or its value does not fit.
    """
    from adjoin.dag.names import suggest
    from adjoin.settings import Settings

    values: dict[str, Any] = {}
    for pair in pairs or ():
        key, text = split_pair(pair, "a setting")
        if key not in Settings.model_fields:
            raise InputError(
                f"there is no setting {key!r}", hint=suggest(key, Settings.model_fields)
            )
        values[key] = _value(text)
    given = Settings.load()
    if not values:
        return given
    try:
        return Settings.load(**values)
    except InputError as error:
        raise InputError(error.message, where="--set") from None


def _value(text: str) -> Any:
    """Lists and mappings are written as JSON; the settings' own types convert every other text."""
    if not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextmanager
def open_runtime(cluster: str | None, settings: Settings) -> Iterator[Runtime]:
    """A runtime for one command, closed at its end."""
    from adjoin import Runtime
    from adjoin.cli.terminal import Activity

    with Activity("starting a cluster" if cluster is None else f"joining {cluster}"):
        runtime = Runtime(cluster, settings=settings)
    try:
        yield runtime
    finally:
        runtime.close()
