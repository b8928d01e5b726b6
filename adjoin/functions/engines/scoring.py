"""Late interaction: how well the words of a text cover those of a query.

Khattab and Zaharia, ColBERT, SIGIR 2020.
"""

from __future__ import annotations

import numpy as np

from adjoin.types import Vector


def max_sim(query: Vector, text: Vector) -> float:
    """The mean over the query's tokens of the cosine of each with its nearest token of the text.

    Args:
        query: token embeddings, ``[q, d]``, of any length.
        text: token embeddings, ``[t, d]``.

    Returns:
        In [-1, 1], whatever the lengths; 0 when a side has no tokens.
    """
    if not len(query) or not len(text):
        return 0.0
    return float((_unit(query) @ _unit(text).T).max(axis=1).mean())


def _unit(rows: Vector) -> Vector:
    # In double precision: the squares of small numbers would vanish.
    exact = np.asarray(rows, np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.asarray(exact / np.maximum(lengths, np.finfo(np.float64).tiny), np.float32)
