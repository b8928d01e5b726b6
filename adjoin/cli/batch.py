"""Many runs of one workflow: a JSON line in, a JSON line out, in the same order."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from adjoin.cli.terminal import Activity, note, plain
from adjoin.errors import AdjoinError, InputError, to_wire
from adjoin.types import Progress

if TYPE_CHECKING:
    from adjoin import Runtime
    from adjoin.dag import Graph


def run_many(
    runtime: Runtime,
    graph: Graph,
    many: Sequence[Mapping[str, Any]],
    output: Path | None,
    concurrency: int,
) -> int:
    """Run all; a run that fails becomes a line with its error.

    Returns:
        0, or the exit code of the first error.
    """
    code = failed = 0
    with _opened(output) as file, Activity(graph.name) as activity:
        results = runtime.map(graph, many, concurrency=concurrency)
        for number, (values, result) in enumerate(zip(many, results, strict=True), start=1):
            if isinstance(result, AdjoinError):
                failed += 1
                code = code or result.exit_code
            print(_line(values, result), file=file, flush=True)
            activity(Progress(label=f"{graph.name}: runs", done=number, total=len(many)))
    note(f"{len(many) - failed} of {len(many)} runs succeeded")
    return code


def _line(values: Mapping[str, Any], result: Any) -> str:
    key, value = (
        ("error", to_wire(result)) if isinstance(result, AdjoinError) else ("output", result)
    )
    return json.dumps({"inputs": plain(values), key: plain(value)}, ensure_ascii=False)


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[str]]:
    if path is None or str(path) == "-":
        yield sys.stdout
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", where=str(path)) from None
    with file:
        yield file
