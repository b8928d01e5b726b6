"""``adjoin keys``: who may call a service on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from adjoin.cli.options import Json, Set, settings_of
from adjoin.cli.terminal import note, print_json, print_table

if TYPE_CHECKING:
    from adjoin.runtime.gateway.keys import KeyStore

app = typer.Typer(
    no_args_is_help=True,
    help="API keys of the service on this machine; they are in its home, and changes hold at once.",
)
_DAY_S = 86_400


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose workflows, runs and collections.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="invoke, deploy, collections, observe or admin; repeatable  [default: invoke]",
            show_default=False,
        ),
    ] = None,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option(min=0.001, help="How long it is valid.")] = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Make a key and print it: only now, for only its sha256 is kept."""
    lifetime = None if days is None else days * _DAY_S
    with _store(set_) as keys:
        key, text = keys.create(tenant, scope or ["invoke"], label=label, lifetime_s=lifetime)
    if as_json:
        print_json({"key": text, "id": key.id, "tenant": key.tenant, "scopes": key.scopes})
        return
    print(text)
    note(f"key {key.id} of {tenant}: {', '.join(key.scopes)}; it is not shown again")


@app.command("list")
def list_keys(as_json: Json = False, set_: Set = None) -> None:
    """The keys there are, without their texts."""
    with _store(set_) as keys:
        found = keys.all()
    if as_json:
        print_json(found)
        return
    if not found:
        note("there are no keys; adjoin keys create makes one")
        return
    rows = [
        (
            key.id,
            key.tenant,
            ", ".join(key.scopes),
            key.label,
            _day(key.created),
            _day(key.expires) if key.expires is not None else "never",
        )
        for key in found
    ]
    print_table(("key", "tenant", "scopes", "label", "created", "expires"), rows)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as keys list has it.")],
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Make a key void; a running service refuses it from now on."""
    with _store(set_) as keys:
        keys.revoke(key)
    print_json({"revoked": key}) if as_json else note(f"revoked key {key}")


@contextmanager
def _store(set_: list[str] | None) -> Iterator[KeyStore]:
    from adjoin.runtime.database import database_url, open_database
    from adjoin.runtime.gateway.keys import KeyStore

    with closing(open_database(database_url(settings_of(set_)))) as state:
        yield KeyStore(state)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
