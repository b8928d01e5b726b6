from __future__ import annotations

import pytest

from adjoin.errors import EngineError, InputError
from adjoin.functions.engines.base import (
    Delta,
    EmbedRequest,
    Failed,
    Finished,
    GenerateRequest,
)
from adjoin.runtime.samples import Samples
from adjoin.types import Generation, Sampling, Token, Usage


def request(n: int, seed: int | None = None, temperature: float = 1.0) -> GenerateRequest:
    sampling = Sampling(n=n, seed=seed, temperature=temperature)
    return GenerateRequest(id="r", prompt="x", sampling=sampling)


def finished(id: str, text: str) -> Finished:
    usage = Usage(prompt=10, cached=4, generated=1)
    return Finished(id=id, generations=(Generation(text=text, tokens=1),), usage=usage)


def test_each_sample_is_a_request_with_a_seed_of_its_own() -> None:
    samples = Samples()
    singles = samples.split(request(3, seed=7))
    assert [single.id for single in singles] == samples.members("r") == ["r.0", "r.1", "r.2"]
    sampling = [each.sampling for each in singles if isinstance(each, GenerateRequest)]
    assert [(each.n, each.seed) for each in sampling] == [(1, 7), (1, 8), (1, 9)]


def test_one_sample_and_other_requests_pass_as_they_are() -> None:
    samples = Samples()
    for each in (request(1), EmbedRequest(id="r", texts=["x"])):
        assert samples.split(each) == [each]
    assert samples.members("r") == ["r"]
    assert samples.join([finished("r", "x")]) == [finished("r", "x")]


def test_they_end_together_in_order_with_all_that_was_used() -> None:
    samples = Samples()
    samples.split(request(2))
    delta = Delta(id="r.1", tokens=(Token("b", (1,)),))
    assert samples.join([delta, finished("r.1", "b")]) == [
        Delta(id="r", tokens=(Token("b", (1,), choice=1),))
    ]
    (end,) = samples.join([finished("r.0", "a")])
    assert isinstance(end, Finished)
    assert [(each.text, each.choice) for each in end.generations] == [("a", 0), ("b", 1)]
    assert end.usage == Usage(prompt=20, cached=8, generated=2)
    assert samples.members("r") == ["r"]


def test_a_failure_of_one_is_the_failure_of_all() -> None:
    samples = Samples()
    samples.split(request(2))
    assert samples.join([Failed.of("r.0", EngineError("no"))]) == []
    (end,) = samples.join([finished("r.1", "b")])
    assert isinstance(end, Failed)
    assert end.id == "r"
    assert end.usage.generated == 1


def test_bad_sampling_is_refused_before_it_is_split() -> None:
    with pytest.raises(InputError, match="temperature"):
        Samples().split(request(2, temperature=0.0))
    with pytest.raises(InputError, match="n is 1000"):
        Samples().split(request(1000))
