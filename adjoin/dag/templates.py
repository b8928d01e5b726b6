"""Reading template files when a graph is built, so that the graph needs no files later."""

from __future__ import annotations

from pathlib import Path

from adjoin.dag.annotations import Template
from adjoin.errors import DefinitionError

MAX_BYTES = 262_144


def read_template(path: Path, base: Path) -> Template:
    """The text of a file that the program's author named, relative to ``base``.

    Raises:
        DefinitionError: it cannot be read as a UTF-8 text of at most 256 KiB.
    """
    full = base / path
    try:
        data = full.read_bytes()
    except OSError as error:
        raise DefinitionError(
            f"the template cannot be read: {error.strerror or error}",
            where=str(full),
            hint=f"paths are relative to {base}",
        ) from None
    if len(data) > MAX_BYTES:
        raise DefinitionError(f"the template is larger than {MAX_BYTES} bytes", where=str(full))
    try:
        return Template(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DefinitionError(
            f"the template is not UTF-8 text (byte {error.start})", where=str(full)
        ) from None


def read_confined(name: str, base: Path) -> Template:
    """Like :func:`read_template` for a name from a workflow text: inside ``base``, through no link.

    Raises:
        DefinitionError: it leaves ``base``, or cannot be read.
    """
    path = Path(name)
    root = base.resolve()
    if path.is_absolute() or ".." in path.parts or (root / path).resolve() != root / path:
        raise DefinitionError(
            f"the template {name[:200]!r} is not inside the workflow's folder",
            where=str(base),
            hint="name a file beside the workflow; links and '..' are not followed",
        )
    return read_template(path, root)
