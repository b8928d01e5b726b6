"""Arrow tables and record batches as a buffer, in Arrow's own format for streams (IPC).

What is decoded is a view of the buffer. Every offset and length in it is checked before anyone
reads by them: Arrow itself trusts what it is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from adjoin.errors import TransportError

_KINDS = {"table": pa.Table, "batch": pa.RecordBatch}


def flatten(value: Any) -> tuple[list[Any], memoryview]:
    """The kind of a value, and its bytes.

    Raises:
        TransportError: it is neither a table nor a record batch.
    """
    kind = next((kind for kind, cls in _KINDS.items() if isinstance(value, cls)), None)
    if kind is None:
        raise TransportError(
            f"a pyarrow {type(value).__name__} cannot travel", hint="make a table of it"
        )
    sink = pa.BufferOutputStream()
    try:
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write(value)
    except pa.ArrowException as error:
        raise TransportError(f"an Arrow table cannot be encoded: {error}") from None
    return [kind], memoryview(sink.getvalue())


def revive(buffer: Any, kind: str) -> Any:
    """The inverse of :func:`flatten`."""
    # Through numpy, so that the table keeps alive what the buffer keeps alive.
    source = pa.py_buffer(np.frombuffer(buffer, np.uint8))
    try:
        with pa.ipc.open_stream(source) as reader:
            table = reader.read_all()
        table.validate(full=True)
        if kind == "table":
            return table
        if kind == "batch":
            return _one_batch(table)
    except (pa.ArrowException, OSError) as error:
        raise TransportError(f"damaged value: {error}") from None
    raise ValueError(f"unknown kind {kind!r} of an Arrow value")


def _one_batch(table: Any) -> Any:
    batches = table.to_batches()
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=table.schema)
    if len(batches) > 1:
        raise ValueError("a record batch in several parts")
    return batches[0]
