"""``adjoin serve``: workflows as an HTTP service."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from adjoin.cli.options import Set, settings_of
from adjoin.cli.terminal import note


def serve(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]...", help="Workflows to deploy, as `adjoin run` names them."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The port; 0 takes a free one.")
    ] = 8000,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="A running Dask scheduler; default is a cluster of its own."
        ),
    ] = None,
    dev: Annotated[
        bool, typer.Option("--dev", help="Callers on this machine need no key.")
    ] = False,
    set_: Set = None,
) -> None:
    """Serve workflows over HTTP until SIGTERM or Ctrl-C; runs in flight then end first."""
    from adjoin.runtime.gateway.server import listen
    from adjoin.runtime.gateway.server import serve as run

    settings = settings_of(set_)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with listen(host, port, settings, dev=dev) as socket:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{socket.getsockname()[1]}"
        run(
            settings,
            [socket],
            files=files or (),
            cluster=scheduler,
            dev=dev,
            started=lambda: note(f"serving at {address}"),
        )
