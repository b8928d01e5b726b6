"""What every benchmark reports, and in which form."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

#: Columns of text, also where the terminal is narrower.
_WIDTH = 160


def arguments(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    return parser


def machine() -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "processor": platform.processor() or platform.machine(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
    }


def report(
    name: str,
    figures: Mapping[str, Any],
    peers: Mapping[str, Mapping[str, Any]] | None = None,
    file: Path | None = None,
    *,
    about: Mapping[str, Mapping[str, Any]] | None = None,
    rows: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Print the figures beside those of the peers, and write them when a file is given.

    Args:
        about: of each peer its version and settings.
        rows: what the figures were counted from, all with the same columns.
    """
    if rows:
        _print(_table_of(rows))
    table = Table(title=name)
    table.add_column("figure", no_wrap=True)
    table.add_column("adjoin", justify="right", no_wrap=True)
    for peer in peers or {}:
        table.add_column(peer, justify="right", no_wrap=True)
    for key in dict.fromkeys([*figures, *(key for each in (peers or {}).values() for key in each)]):
        cells = [figures.get(key), *(each.get(key) for each in (peers or {}).values())]
        table.add_row(key, *(_text(cell) for cell in cells))
    _print(table)
    for peer, said in (about or {}).items():
        print(f"{peer}: {', '.join(_setting(*item) for item in said.items())}")
    if file is not None:
        content = {
            "benchmark": name,
            "machine": machine(),
            "figures": dict(figures),
            "peers": {peer: dict(found) for peer, found in (peers or {}).items()},
            "rows": [dict(row) for row in rows],
            "about_peers": {peer: dict(said) for peer, said in (about or {}).items()},
        }
        file.write_text(json.dumps(content, indent=2) + "\n")


def _table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table()
    for column in rows[0]:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*map(_text, row.values()))
    return table


def _print(table: Table) -> None:
    Console(width=_WIDTH).print(table, soft_wrap=True)  # a figure that is cut off is none


def _setting(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(_setting(*item) for item in value.items())
    return f"{name} {value}"


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
