"""Costs are learned: they converge, bear outliers, follow changes, and reach the last stage."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adjoin
from adjoin import functions as fn
from adjoin.runtime.policies.costs import (
    Costs,
    Moved,
    Observation,
    estimate,
    learn,
    learn_inputs,
    learn_link,
)
from adjoin.runtime.policies.estimates import Limit, Linear, Mean
from adjoin.runtime.policies.placement import Topology, Worker, place
from adjoin.runtime.policies.prediction import predict
from adjoin.types import Usage


@adjoin.workflow
def ask(question: str):  # type: ignore[no-untyped-def]
    prompt = fn.prompt("Answer: {{ question }}", question=question)
    return fn.generate(prompt, model="small", max_tokens=32)


GRAPH = ask.graph
WORKERS = Topology(1, (Worker("w0", "a", "h", models=frozenset({"small"})),))


def fits(weights: tuple[float, ...]) -> Linear:
    doubts = tuple(3 * weight for weight in weights)
    return Linear.prior(tuple(2.5 * weight for weight in weights), doubts, 1e-3)


def test_a_linear_model_finds_its_weights_in_noise() -> None:
    rng = random.Random(3)
    truth = (0.05, 0.002, 0.04)
    model = fits(truth)
    for _ in range(60):
        x = (1.0, rng.uniform(10, 1500), rng.uniform(4, 64))
        y = sum(a * b for a, b in zip(truth, x, strict=True)) * rng.uniform(0.93, 1.07)
        model = model.observe(x, y)
    for x in ((1.0, 50.0, 32.0), (1.0, 1400.0, 32.0), (1.0, 700.0, 5.0)):
        assert model.at(x) == pytest.approx(sum(map(lambda a, b: a * b, truth, x)), rel=0.08)


def test_an_outlier_teaches_little_and_a_lasting_change_is_followed() -> None:
    model = fits((0.1, 0.001))
    for at in range(30):
        x = (1.0, 100.0 + 10 * at)
        model = model.observe(x, 0.1 + 0.001 * x[1])
    before = model.at((1.0, 200.0))
    assert model.observe((1.0, 200.0), 30.0).at((1.0, 200.0)) == pytest.approx(before, rel=0.1)
    for at in range(60):
        x = (1.0, 100.0 + 10 * (at % 30))
        model = model.observe(x, 3 * (0.1 + 0.001 * x[1]))
    assert model.at((1.0, 200.0)) == pytest.approx(3 * before, rel=0.15)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e3)), min_size=1, max_size=40),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
def test_more_work_never_costs_less(
    seen: list[tuple[float, float]], one: float, other: float
) -> None:
    model = Linear.prior((0.01, 1e-6), (0.1, 1e-4), 1e-3)
    for size, seconds in seen:
        model = model.observe((1.0, size), seconds)
    less, more = sorted((one, other))
    assert 0 <= model.at((1.0, less)) <= model.at((1.0, more))


def test_a_mean_starts_with_what_is_seen_first() -> None:
    mean = Mean(100.0).observe(4.0)
    assert mean.value == 4.0
    for _ in range(100):
        mean = mean.observe(8.0)
    assert mean.value == pytest.approx(8.0, rel=0.01)


def taught(runs: int, factor: float = 1.0, costs: Costs | None = None) -> Costs:
    """Runs whose prompts have a token in five bytes, and take 1 ms a token of prompt."""
    rng = random.Random(runs)
    costs = costs or Costs()
    for _ in range(runs):
        size = rng.randrange(200, 4000)
        tokens = (size + 50) // 5
        costs = learn_inputs(costs, GRAPH, {"question": size})
        seen = Observation("prompt", size, size + 50, Usage(seconds=0.002 * factor))
        costs = learn(costs, GRAPH, seen)
        seconds = factor * (0.1 + 0.001 * (tokens - 16) + 0.02 * 32)
        usage = Usage(prompt=tokens, cached=16, generated=32, seconds=seconds)
        costs = learn(costs, GRAPH, Observation("generate", size + 50, 130, usage))
    return costs


@pytest.mark.parametrize("size", [250, 1000, 7500])
def test_a_prediction_reaches_from_the_inputs_to_the_last_stage(size: int) -> None:
    costs = taught(30)
    work = estimate(GRAPH, costs, {"question": size})["generate"]
    assert work.prompt == pytest.approx((size + 50) / 5, rel=0.1)
    assert work.cached == pytest.approx(16)
    assert work.generated == pytest.approx(32)
    plan = place(GRAPH, WORKERS, None, costs)
    found = predict(GRAPH, plan, costs, {"question": size})
    actual = 0.1 + 0.001 * ((size + 50) / 5 - 16) + 0.02 * 32
    assert found.stages["generate"] == pytest.approx(actual, rel=0.1)
    assert found.seconds == pytest.approx(actual + 0.002, rel=0.1)
    assert found.critical == ("prompt", "generate")


def test_what_was_learned_holds_for_another_graph_with_the_same_model() -> None:
    @adjoin.workflow
    def other(text: str):  # type: ignore[no-untyped-def]
        return fn.generate(text, model="small", max_tokens=32)

    costs = taught(30)
    (work,) = estimate(other.graph, costs, {"text": 4000}).values()
    assert work.seconds == pytest.approx(0.1 + 0.001 * work.prompt + 0.64, rel=0.15)


def test_plans_are_made_again_when_costs_have_drifted_and_not_before() -> None:
    costs = taught(20)
    settled = costs.epoch
    costs = taught(20, costs=costs)
    assert costs.epoch == settled
    assert taught(30, 4.0, costs).epoch > settled


def test_what_never_changes_is_small() -> None:
    costs = Costs()
    for number in range(3000):
        costs = learn_inputs(costs, GRAPH, {f"n{number}": 1})
    assert len(costs.inputs) <= 2048


def test_links_are_learned_by_pair_of_hosts() -> None:
    costs = Costs()
    one, other = Worker("a", "a", "h1"), Worker("b", "b", "h2")
    third = Worker("c", "c", "h3")
    prior = costs.transfer(one, other, "remote", 1e7)
    for size in (1e5, 1e6, 1e7, 2e7) * 5:
        costs = learn_link(costs, Moved("h1", "h2", "remote", int(size), 0.01 + size * 1e-8))
    assert costs.transfer(other, one, "remote", 1e7) == pytest.approx(0.11, rel=0.1)
    assert costs.transfer(one, third, "remote", 1e7) == prior
    assert costs.transfer(one, one, "local", 1e7) == 0


def test_a_cold_start_is_remembered_by_model() -> None:
    costs = Costs()
    usage = Usage(prompt=10, generated=5, seconds=4.5, cold_start_seconds=4.0)
    costs = learn(costs, GRAPH, Observation("generate", 100, 20, usage))
    assert costs.start("small") == 4.0
    cold = Topology(1, (Worker("w0", "a", "h"),))
    assert place(GRAPH, cold, None, costs).terms["generate"].cold == pytest.approx(4.0, abs=0.1)
    assert place(GRAPH, WORKERS, None, costs).terms["generate"].cold == 0


def test_the_first_time_of_a_function_is_soon_forgotten() -> None:
    def after(*times: float) -> float:
        costs = Costs()
        for seconds in times:
            seen = Observation("prompt", 300, 350, Usage(seconds=seconds))
            costs = learn(costs, GRAPH, seen)
        return estimate(GRAPH, costs, {"question": 300})["prompt"].seconds

    assert after(0.04) == pytest.approx(0.04, rel=0.25)  # it is all that is known
    assert after(0.04, 0.0005, 0.0005) < 0.001
    assert after(0.04, 0.04, 0.04) == pytest.approx(0.04, rel=0.05)


def test_a_text_longer_than_its_model_takes_costs_no_more_than_one_as_long() -> None:
    @adjoin.workflow
    def flow(text: str):  # type: ignore[no-untyped-def]
        return fn.embed(text, model="minilm")

    def seconds(costs: Costs, size: int) -> float:
        return estimate(flow.graph, costs, {"text": size})["embed"].seconds

    costs = Costs()
    rng = random.Random(2)
    for _ in range(40):
        size = rng.randrange(100, 6000)
        tokens = min(256, size // 5)
        usage = Usage(embedded=tokens, seconds=0.01 + 2e-4 * tokens)
        costs = learn(costs, flow.graph, Observation("embed", size, 1536, usage))
    for size in (300, 900, 1280, 3000, 6000, 20000):
        expected = 0.01 + 2e-4 * min(256, size // 5)
        assert seconds(costs, size) == pytest.approx(expected, rel=0.15)


def test_texts_of_one_size_are_no_sign_of_a_limit() -> None:
    limit = Limit()
    for _ in range(10):
        limit = limit.observe(1000.0, 200.0)
    assert limit.cap(500.0) == 500.0
    limit = limit.observe(1500.0, 200.0)
    assert limit.cap(500.0) == 200.0
    assert limit.observe(1600.0, 201.0).cap(500.0) == 500.0


@pytest.mark.parametrize("seed", range(20))
def test_features_that_go_together_and_wild_noise_do_not_drive_weights_apart(seed: int) -> None:
    rng = random.Random(seed)
    model = Linear.prior((0.05, 1e-3, 0.02, 1e-9), (0.2, 5e-3, 0.1, 1e-6), 1e-3)
    seen = []
    for _ in range(200):
        tokens = rng.randrange(10, 1500)
        y = 0.002 * rng.lognormvariate(0, 1)
        seen.append(y)
        model = model.observe((1.0, tokens, 8.0, 5.0 * tokens), y)
    assert min(seen) < model.at((1.0, 700.0, 8.0, 3500.0)) < max(seen)
