"""Resolve a model to local files, in a process of its own: fetching and converting are heavy.

Reads the model's name from the command line, writes JSON lines: progress, then files or an error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from adjoin.errors import AdjoinError, ModelError, to_wire
from adjoin.runtime import process
from adjoin.types import Progress


class Resolved(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    path: str
    digest: str
    kind: str


class Reported(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    label: str


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    error: dict[str, Any]


Line: TypeAlias = Resolved | Reported | Refused


def main(home: str, source: str, engine: str) -> int:
    process.die_with_parent()
    process.ignore_interrupts()
    try:
        _say(_resolve(Path(home), source, None if engine == "auto" else engine))
    except AdjoinError as error:
        _say(Refused(error=to_wire(error)))
    except Exception as error:  # noqa: BLE001 - whatever it is, the host must be told
        import traceback

        traceback.print_exc()
        failed = ModelError(f"{type(error).__name__}: {error}", where=f"model {source!r}")
        _say(Refused(error=to_wire(failed)))
    return 0


def _resolve(home: Path, source: str, engine: str | None) -> Resolved:
    from adjoin.functions.models import ModelStore

    files = ModelStore(home).resolve(source, for_engine=engine, progress=_report)
    return Resolved(path=str(files.path), digest=files.digest, kind=files.kind)


def _report(progress: Progress) -> None:
    _say(Reported(label=progress.label))


def _say(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:4]))
