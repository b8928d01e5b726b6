"""Documents into collections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adjoin.cli.report import embedding_of
from adjoin.cli.terminal import Activity, note
from adjoin.errors import InputError, NotFound

if TYPE_CHECKING:
    from adjoin import Runtime
    from adjoin.dag import Graph
    from adjoin.runtime.collection import SyncReport

DEFAULT_EMBEDDING = "minilm"
_SHOWN = 5


def collection_to_fill(graph: Graph, name: str | None) -> str:
    """The collection that ``--docs`` means.

    Raises:
        InputError: the workflow names none, or several and ``name`` does not choose one of them.
    """
    names = sorted(graph.collection_names())
    if not names:
        raise InputError(
            f"workflow {graph.name!r} uses no collection",
            hint="leave out --docs, or add a retrieve",
        )
    if name is None and len(names) == 1:
        return names[0]
    if name is None or name not in names:
        problem = "uses several collections" if name is None else f"uses no collection {name!r}"
        raise InputError(
            f"workflow {graph.name!r} {problem}",
            hint=f"--collection-name is one of {', '.join(names)}",
        )
    return name


def check_documents(path: Path) -> None:
    """Look for documents before anything starts.

    Raises:
        NotFound: there is nothing at the path.
        InputError: it holds no document of a supported kind.
    """
    from adjoin.functions.ingest import scan
    from adjoin.functions.ingest.scan import SUFFIXES

    if not path.exists():
        raise NotFound("there is no such file or folder", where=str(path))
    if path.is_dir() and not any(file.suffix.lower() in SUFFIXES for file in path.rglob("*")):
        scan(path)  # says why


def fill(runtime: Runtime, graph: Graph, path: Path, name: str | None) -> SyncReport:
    """Make the workflow's collection hold what is at ``path``; says on stderr what changed."""
    collection = collection_to_fill(graph, name)
    return sync(runtime, collection, path, embedding_of(graph, collection) or DEFAULT_EMBEDDING)


def sync(runtime: Runtime, collection: str, path: Path, embedding: str | None) -> SyncReport:
    """Make a collection hold what is at ``path``; says on stderr what changed.

    Raises:
        InputError: nothing there can be read.
    """
    check_documents(path)
    with Activity(f"reading {path}") as activity:
        handle = runtime.collection(collection, embedding=embedding)
        report = handle.add_files(path, progress=activity)
    describe(collection, report)
    if report.skipped and not report.added + report.changed + report.unchanged:
        raise InputError("no document could be read", where=str(path))
    return report


def describe(collection: str, report: SyncReport) -> None:
    """Say on stderr what a sync changed and what it could not read."""
    counts = {
        "added": report.added,
        "changed": report.changed,
        "removed": report.removed,
        "unchanged": report.unchanged,
        "skipped": len(report.skipped),
    }
    shown = ", ".join(f"{count} {label}" for label, count in counts.items() if count)
    note(f"collection {collection}: documents {shown}; {report.passages} passages embedded")
    for source, reason in report.skipped[:_SHOWN]:
        note(f"  skipped {source}: {reason}")
    if len(report.skipped) > _SHOWN:
        note(f"  and {len(report.skipped) - _SHOWN} more")
