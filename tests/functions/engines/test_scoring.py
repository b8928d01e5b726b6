from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adjoin.functions.engines.scoring import max_sim
from adjoin.types import Vector


def rows(*values: tuple[float, ...]) -> Vector:
    return np.asarray(values, np.float32).reshape(len(values), -1)


def test_each_token_of_the_query_counts_its_nearest() -> None:
    query = rows((1, 0), (0, 1))
    assert max_sim(query, rows((3, 0), (0, 5))) == pytest.approx(1)
    assert max_sim(query, rows((1, 0))) == pytest.approx(0.5)
    assert max_sim(query, rows((-2, 0))) == pytest.approx(-0.5)


def test_a_side_without_tokens_scores_nothing() -> None:
    assert max_sim(np.zeros((0, 2), np.float32), rows((1, 0))) == 0
    assert max_sim(rows((1, 0)), rows((0, 0))) == 0


_matrix = st.integers(1, 5).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(-4, 4, width=32), min_size=3, max_size=3), min_size=n, max_size=n
    )
)


@given(_matrix, _matrix)
@example([[0.0, 1.0, 0.0]], [[0.0, 1.9e-28, 0.0]])
def test_it_is_bounded_and_more_text_never_scores_less(
    query: list[list[float]], text: list[list[float]]
) -> None:
    q, t = np.asarray(query, np.float32), np.asarray(text, np.float32)
    score = max_sim(q, t)
    assert -1.0001 <= score <= 1.0001
    assert max_sim(q, np.concatenate([t, q])) >= score - 1e-5
