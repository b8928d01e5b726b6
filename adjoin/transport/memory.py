"""Arrays that lie in shared memory from the start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from adjoin.transport.codec import PLAIN_DTYPES
from adjoin.transport.pool import SMALLEST, Pool

_pool: ContextVar[Pool | None] = ContextVar("adjoin_shared_memory", default=None)


@contextmanager
def allocating(pool: Pool) -> Iterator[None]:
    """:func:`empty` takes from this pool, here and in tasks and stage threads started from here."""
    before = _pool.set(pool)
    try:
        yield
    finally:
        _pool.reset(before)


def empty(shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> np.ndarray[Any, Any]:
    """An uninitialised array, as ``numpy.empty`` makes it, that a stage can fill and return.

    In a stage it lies in shared memory, so that a worker of the same machine reads it where it is.
    Once it has been handed over it cannot be written to; write through no other view of it either,
    such as one taken before. Small arrays, those of objects, those past the worker's
    ``shared_bytes``, and those made outside of a stage (or in a thread that a stage has started)
    are ordinary ones: the result is the same, and costs a copy when it is handed over.
    """
    kind = np.dtype(dtype)
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    array = None
    pool = _pool.get()
    if (
        pool is not None
        and kind.kind in PLAIN_DTYPES
        and kind.itemsize
        and min(sizes, default=1) > 0
    ):
        array = _shared(pool, sizes, kind)
    return np.empty(shape, kind) if array is None else array


def _shared(
    pool: Pool, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray[Any, Any] | None:
    nbytes = dtype.itemsize
    for size in shape:
        nbytes *= size
    return pool.empty(shape, dtype) if nbytes >= SMALLEST else None
