from __future__ import annotations

import math

import pytest

from adjoin.types import Sampling

torch = pytest.importorskip("torch")

from adjoin.functions.engines.sampling import draw, penalised, restricted  # noqa: E402


def test_temperature_zero_takes_the_best_and_gives_its_log_probability() -> None:
    logits = torch.tensor([0.0, 2.0, 1.0])
    id, logprob = draw(logits, Sampling(), [], [], None)
    assert id == 1
    assert logprob == pytest.approx(2 - math.log(1 + math.e**2 + math.e), rel=1e-5)


def test_penalties_push_down_what_was_said() -> None:
    logits = torch.tensor([1.0, 1.0, -1.0])
    scores = penalised(logits, Sampling(presence_penalty=0.5, frequency_penalty=0.25), [1], [0, 0])
    assert scores.tolist() == [0.0, 1.0, -1.0]
    scores = penalised(logits, Sampling(repetition_penalty=2.0), [2], [0])
    assert scores.tolist() == [0.5, 1.0, -2.0]
    assert logits.tolist() == [1.0, 1.0, -1.0]


def test_top_k_and_top_p_leave_the_best() -> None:
    scores = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    kept = restricted(scores, Sampling(top_k=2)) > -torch.inf
    assert kept.tolist() == [True, True, False, False]
    kept = restricted(scores, Sampling(top_p=0.6)) > -torch.inf
    assert kept.tolist() == [True, True, False, False]
    kept = restricted(scores, Sampling(top_p=0.01)) > -torch.inf
    assert kept.tolist() == [True, False, False, False]


def test_draws_follow_the_distribution_and_repeat_with_the_seed() -> None:
    logits = torch.log(torch.tensor([0.8, 0.2]))

    def draws(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        sampling = Sampling(temperature=1.0)
        return [draw(logits, sampling, [], [], generator)[0] for _ in range(400)]

    assert draws(1) == draws(1) != draws(2)
    assert 280 < draws(1).count(0) < 360
