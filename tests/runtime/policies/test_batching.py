from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adjoin.functions.engines.base import EmbedRequest, GenerateRequest
from adjoin.runtime.policies.batching import (
    Limits,
    Waiting,
    admit,
    refusal,
    shared_prompt,
    weight,
)
from adjoin.types import Message, Sampling

_prompts = st.sampled_from([b"", b"x", b"y"])
_queues = st.lists(st.builds(Waiting, st.integers(1, 20), _prompts), max_size=20)
LONG = "a prompt that is worth waiting for " * 10


def generate(prompt: str | list[Message] = LONG, salt: str = "", n: int = 1) -> GenerateRequest:
    return GenerateRequest(id="a", prompt=prompt, sampling=Sampling(n=n), salt=salt)


@given(_queues, st.integers(0, 20), st.sets(_prompts), st.integers(1, 20))
def test_admission_fills_the_engine_in_order_and_never_past_its_capacity(
    waiting: list[Waiting], running: int, prefilling: set[bytes], capacity: int
) -> None:
    entering = admit(waiting, running, Limits(capacity=capacity), prefilling=prefilling)
    assert entering == sorted(set(entering))
    inside = running + sum(waiting[at].size for at in entering)
    if entering:
        assert inside <= capacity or (running == 0 and len(entering) == 1)
    computed = prefilling | {waiting[at].prompt for at in entering}
    for at, (size, prompt) in enumerate(waiting):
        if at not in entering and not (prompt and prompt in computed):
            # It does not fit, or what is inside fills the engine alone.
            assert inside + size > capacity
            break


@given(_queues, st.integers(0, 20), st.sets(_prompts), st.integers(1, 20))
def test_no_prompt_is_computed_twice_at_once(
    waiting: list[Waiting], running: int, prefilling: set[bytes], capacity: int
) -> None:
    entering = admit(waiting, running, Limits(capacity=capacity), prefilling=prefilling)
    prompts = [waiting[at].prompt for at in entering if waiting[at].prompt]
    assert len(prompts) == len(set(prompts))
    assert not prefilling & set(prompts)
    # Once it is computed, nothing holds it back.
    known = {b"x", b"y"}
    limits = Limits(capacity=capacity)
    assert admit(waiting, running, limits, prefilling=prefilling, computed=known) == admit(
        [Waiting(each.size) for each in waiting], running, limits
    )


def test_the_first_computes_the_prompt_and_others_pass_those_that_wait_for_it() -> None:
    queue = [Waiting(1, b"x"), Waiting(1, b"x"), Waiting(1, b"y"), Waiting(1)]
    limits = Limits(capacity=16)
    assert admit(queue, 0, limits) == [0, 2, 3]
    assert admit(queue, 3, limits, prefilling={b"x", b"y"}) == [3]
    assert admit(queue, 3, limits, prefilling={b"x"}, computed={b"x"}) == [0, 1, 2, 3]


def test_a_wide_request_is_not_overtaken() -> None:
    assert admit([Waiting(10), Waiting(1), Waiting(1)], 8, Limits(capacity=16)) == []


def test_one_wider_than_the_engine_enters_alone() -> None:
    assert admit([Waiting(64), Waiting(1)], 0, Limits(capacity=16)) == [0]


def test_prompts_are_shared_that_are_the_same_tokens_under_the_same_salt() -> None:
    assert shared_prompt(generate(n=8)) == shared_prompt(generate(n=1)) != b""
    turns = [Message("system", LONG), Message("user", "one")]
    others = [Message("system", LONG), Message("user", "two")]
    found = {
        shared_prompt(generate()),
        shared_prompt(generate(salt="mine")),
        shared_prompt(generate(turns)),
        shared_prompt(generate(others)),
    }
    assert len(found) == 4


def test_short_prompts_and_texts_wait_for_nobody() -> None:
    assert shared_prompt(generate("short")) == b""
    assert shared_prompt(EmbedRequest(id="a", texts=[LONG])) == b""


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
