"""``adjoin collections``: documents with vectors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adjoin.cli.options import Cluster, Json, Set, open_runtime, settings_of
from adjoin.cli.terminal import (
    Activity,
    bytes_text,
    note,
    print_json,
    print_table,
    printable,
    shorten,
)
from adjoin.errors import InputError

if TYPE_CHECKING:
    from adjoin.settings import Settings
    from adjoin.vector_state.collections import CollectionInfo

app = typer.Typer(no_args_is_help=True, help="Collections: documents that workflows search.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The collection.")]
_SNIPPET = 200


@app.command("list")
def list_collections(as_json: Json = False, cluster: Cluster = None, set_: Set = None) -> None:
    """Collections with their sizes and embedding models."""
    infos = _infos(cluster, settings_of(set_))
    if as_json:
        print_json(infos)
        return
    if not infos:
        note("there are no collections; adjoin collections add NAME PATH makes one")
        return
    rows = [
        (
            info.name,
            f"{info.sources:,}",
            f"{info.passages:,}",
            info.embedding,
            str(info.dimension),
            bytes_text(info.bytes),
        )
        for info in infos
    ]
    columns = ("collection", "sources", "passages", "embedding", "dimension", "on disk")
    print_table(columns, rows, right=("sources", "passages", "dimension", "on disk"))


@app.command()
def add(
    name: Name,
    path: Annotated[Path, typer.Argument(help="A file or folder: .md, .txt, .html, .pdf.")],
    embedding: Annotated[
        str | None, typer.Option(help="The embedding model of a new collection [default: minilm].")
    ] = None,
    as_json: Json = False,
    cluster: Cluster = None,
    set_: Set = None,
) -> None:
    """Make a collection hold what a folder holds now: only what changed is embedded again."""
    from adjoin.cli.fill import check_documents, sync

    check_documents(path)
    with open_runtime(cluster, settings_of(set_)) as runtime:
        report = sync(runtime, name, path, embedding)
    if as_json:
        print_json(report)


@app.command()
def search(
    name: Name,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many passages.")] = 4,
    as_json: Json = False,
    cluster: Cluster = None,
    set_: Set = None,
) -> None:
    """The passages nearest to a text, best first."""
    with open_runtime(cluster, settings_of(set_)) as runtime, Activity(f"searching {name}"):
        passages = runtime.collection(name).search(query, k)
    if as_json:
        print_json(passages)
        return
    for passage in passages:
        print(f"{passage.score:.3f}  {printable(passage.source)}")
        print(f"       {shorten(passage.text, _SNIPPET)}")


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    cluster: Cluster = None,
    set_: Set = None,
) -> None:
    """Remove a collection and its files."""
    settings = settings_of(set_)
    if not yes:
        _confirm(name)
    if cluster is None:
        from adjoin.vector_state.collections import remove

        remove(_root(settings), name)
    else:
        with open_runtime(cluster, settings) as runtime:
            runtime.collection(name).delete()
    if as_json:
        print_json({"deleted": name})
    else:
        note(f"deleted collection {name}")


def _confirm(name: str) -> None:
    if not sys.stdin.isatty():
        raise InputError("deleting a collection cannot be undone", where=name, hint="add --yes")
    typer.confirm(f"Delete collection {name} and its files?", abort=True, err=True)


def _infos(cluster: str | None, settings: Settings) -> list[CollectionInfo]:
    if cluster is not None:
        with open_runtime(cluster, settings) as runtime:
            return runtime.collections()
    from adjoin.vector_state.collections import list_collections

    return list_collections(_root(settings))


def _root(settings: Settings) -> Path:
    """Where an embedded cluster keeps its collections; looking there needs no cluster."""
    return settings.home / "collections"
