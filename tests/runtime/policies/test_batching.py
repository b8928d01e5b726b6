from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adjoin.functions.engines.base import EmbedRequest, GenerateRequest
from adjoin.runtime.policies.batching import Limits, admit, refusal, weight
from adjoin.types import Sampling

_sizes = st.lists(st.integers(1, 20), max_size=20)


@given(_sizes, st.integers(0, 20), st.integers(1, 20))
def test_admission_fills_the_engine_in_order_and_never_past_its_capacity(
    waiting: list[int], running: int, capacity: int
) -> None:
    count = admit(waiting, running, Limits(capacity=capacity))
    inside = running + sum(waiting[:count])
    if count:
        assert inside <= capacity or (running == 0 and count == 1)
    if count < len(waiting):
        # The next does not fit, or what is inside fills the engine alone.
        assert inside + waiting[count] > capacity


def test_a_wide_request_is_not_overtaken() -> None:
    assert admit([10, 1, 1], 8, Limits(capacity=16)) == 0


def test_one_wider_than_the_engine_enters_alone() -> None:
    assert admit([64, 1], 0, Limits(capacity=16)) == 1


def test_weights_are_samples_and_texts() -> None:
    assert weight(GenerateRequest(id="a", prompt="x", sampling=Sampling(n=4))) == 4
    assert weight(EmbedRequest(id="a", texts=["x"] * 3)) == 3
    assert weight(EmbedRequest(id="a", texts=[])) == 1


def test_a_full_queue_refuses_and_says_what_to_do() -> None:
    limits = Limits(capacity=1, queue=2)
    assert refusal(1, limits) is None
    refused = refusal(2, limits)
    assert refused is not None
    assert refused.retryable
    assert refused.hint
