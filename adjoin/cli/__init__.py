"""The command line. Importing it costs nothing; :func:`main` loads what its command needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code (docs/cli.md lists them)."""
    from adjoin.cli.exits import guarded

    given = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(given)


__all__ = ["main"]
