"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from adjoin.cli import collections, evaluate, keys, models, remote, run, workflows
from adjoin.cli.doctor import doctor
from adjoin.cli.exits import EXIT_CODES
from adjoin.cli.serve import serve

# The \b keeps the lines as they are.
_EPILOG = "\b\nExit codes:\n" + "\n".join(
    f"  {code:<4} {what}" for code, what in EXIT_CODES.items()
)

app = typer.Typer(
    name="adjoin",
    help="Workflows of model functions, run next to the state they need.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        from adjoin import __version__

        print(f"adjoin {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


app.command("run")(run.run)
app.command("eval")(evaluate.evaluate)
app.command("validate")(workflows.validate)
app.command("graph")(workflows.graph)
app.command("explain")(workflows.explain)
app.command("schema")(workflows.schema)
app.command("serve")(serve)
app.command("deploy")(remote.deploy)
app.command("invoke")(remote.invoke)
app.command("ps")(remote.ps)
app.command("logs")(remote.logs)
app.command("usage")(remote.usage)
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(collections.app, name="collections")
app.command("doctor")(doctor)
