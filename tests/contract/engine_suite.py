"""What every engine must do. A suite subclasses this and says how to make an engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema
import numpy as np
import pytest

from adjoin.errors import AdjoinError, InputError, from_wire
from adjoin.functions.engines.base import (
    Delta,
    Embedded,
    EmbedRequest,
    Engine,
    Failed,
    Finished,
    GenerateRequest,
    Output,
    Scored,
    ScoreRequest,
)
from adjoin.types import Message, Sampling, Token, Vector

PROMPT = "Name three colours of the rainbow."
PROMPTS = ("What is rain?", "Write a short greeting to a friend.", "Count from one to five.")


def drive(engine: Engine, ids: Sequence[str]) -> list[Output]:
    """Step until each of the requests has ended; all outputs in order."""
    outputs: list[Output] = []
    open_ids = set(ids)
    for _ in range(10_000):
        if not open_ids:
            return outputs
        new = engine.step()
        outputs += new
        open_ids -= {output.id for output in new if not isinstance(output, Delta)}
    raise AssertionError(f"{open_ids} never ended")


def ask(
    engine: Engine, prompt: str | list[Message], *, id: str = "a", **sampling: object
) -> Finished:
    """Generate alone, with the tokens checked against the end."""
    engine.add(request_of(id, prompt, **sampling))
    outputs = drive(engine, [id])
    check_stream(outputs, id)
    finished = outputs[-1]
    assert isinstance(finished, Finished), finished
    return finished


def check_stream(outputs: Sequence[Output], id: str) -> None:
    """Deltas come before the end, and add up to it."""
    mine = [output for output in outputs if output.id == id]
    assert all(isinstance(output, Delta) for output in mine[:-1])
    end = mine[-1]
    assert isinstance(end, Finished)
    tokens = [token for output in mine if isinstance(output, Delta) for token in output.tokens]
    for generation in end.generations:
        own = [token for token in tokens if token.choice == generation.choice]
        for reasoning, text in ((False, generation.text), (True, generation.reasoning)):
            assert "".join(t.text for t in own if t.reasoning is reasoning) == text
        assert sum(len(token.ids) for token in own) == generation.tokens


def tokens_of(outputs: Sequence[Output], id: str) -> list[Token]:
    return [t for o in outputs if isinstance(o, Delta) and o.id == id for t in o.tokens]


def request_of(id: str, prompt: str | list[Message], **sampling: object) -> GenerateRequest:
    asked: Any = {
        name: sampling.pop(name) for name in ("raw", "schema", "tools") if name in sampling
    }
    settings = Sampling(**{"max_tokens": 16, **sampling})  # type: ignore[arg-type]
    return GenerateRequest(id=id, prompt=prompt, sampling=settings, **asked)


#: Nested objects, enums, numbers and lists, all bounded: no answer can be too long.
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "colour": {"enum": ["red", "green", "blue"]},
        "size": {
            "type": "object",
            "properties": {
                "width": {"type": "integer", "minimum": 0, "maximum": 99},
                "unit": {"enum": ["cm", "m"]},
            },
            "required": ["width", "unit"],
        },
        "tags": {"type": "array", "items": {"enum": ["old", "new"]}, "maxItems": 3},
    },
    "required": ["name", "colour", "size", "tags"],
}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


class GenerationContract:
    """For engines that generate. ``engine`` holds prompts of 200 words, but not of 10,000."""

    @classmethod
    def load(cls) -> Engine:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        loaded = cls.load()
        yield loaded
        loaded.close()

    def test_tokens_stream_one_by_one_and_add_up_to_the_answer(self, engine: Engine) -> None:
        engine.add(request_of("a", PROMPT, max_tokens=8))
        first = engine.step()
        while not first:
            first = engine.step()
        assert not any(isinstance(output, Finished) for output in first)
        outputs = first + drive(engine, ["a"])
        check_stream(outputs, "a")
        end = outputs[-1]
        assert isinstance(end, Finished)
        assert end.generations[0].text

    def test_temperature_zero_is_deterministic(self, engine: Engine) -> None:
        first = ask(engine, PROMPT)
        assert ask(engine, PROMPT).generations == first.generations

    def test_a_seed_repeats_and_another_seed_differs(self, engine: Engine) -> None:
        def sampled(seed: int) -> str:
            answer = ask(engine, PROMPT, temperature=1.5, seed=seed, max_tokens=24)
            return answer.generations[0].text

        assert sampled(1) == sampled(1)
        assert len({sampled(seed) for seed in range(4)}) > 1

    def test_max_tokens_cuts_and_says_length(self, engine: Engine) -> None:
        generation = ask(engine, PROMPT, max_tokens=2).generations[0]
        assert generation.tokens == 2
        assert generation.finish_reason == "length"

    def test_a_stop_string_ends_the_answer_and_is_not_in_it(self, engine: Engine) -> None:
        whole = ask(engine, PROMPT, max_tokens=16).generations[0].text
        stop = whole.split()[1]
        generation = ask(engine, PROMPT, max_tokens=16, stop=(stop,)).generations[0]
        assert generation.finish_reason == "stop"
        assert generation.text == whole[: whole.index(stop)]

    def test_a_stop_string_may_span_tokens(self, engine: Engine) -> None:
        whole = ask(engine, PROMPT, max_tokens=16).generations[0].text
        middle = len(whole) // 2
        stop = whole[middle - 3 : middle + 3]
        generation = ask(engine, PROMPT, max_tokens=16, stop=(stop,)).generations[0]
        assert generation.text == whole[: whole.index(stop)]

    def test_n_samples_end_together_each_under_its_number(self, engine: Engine) -> None:
        finished = ask(engine, PROMPT, n=3, temperature=1.5, seed=7, max_tokens=12)
        assert [generation.choice for generation in finished.generations] == [0, 1, 2]
        assert len({generation.text for generation in finished.generations}) > 1
        assert finished.usage.generated == sum(g.tokens for g in finished.generations)

    def test_several_samples_need_a_temperature(self, engine: Engine) -> None:
        with pytest.raises(InputError, match="temperature"):
            engine.add(request_of("a", PROMPT, n=2))

    def test_a_batch_answers_as_each_alone(self, engine: Engine) -> None:
        alone = [ask(engine, prompt).generations for prompt in PROMPTS]
        ids = [f"b{number}" for number in range(len(PROMPTS))]
        for id, prompt in zip(ids, PROMPTS, strict=True):
            engine.add(request_of(id, prompt))
        outputs = drive(engine, ids)
        ends = {output.id: output for output in outputs if isinstance(output, Finished)}
        assert [ends[id].generations for id in ids] == alone
        for id in ids:
            check_stream(outputs, id)

    def test_an_answer_fits_its_schema_or_the_engine_says_that_it_cannot(
        self, engine: Engine
    ) -> None:
        text = json.dumps(SCHEMA)
        if "schema" not in engine.capabilities:
            with pytest.raises(InputError, match="schema"):
                engine.add(request_of("a", PROMPT, schema=text))
            return
        engine.add(request_of("a", PROMPT, schema=text, max_tokens=200, temperature=1.0, seed=1))
        engine.add(request_of("free", PROMPT, max_tokens=4))
        ends = {o.id: o for o in drive(engine, ["a", "free"]) if isinstance(o, Finished)}
        jsonschema.validate(json.loads(ends["a"].generations[0].text), SCHEMA)
        assert ends["free"].generations[0].tokens == 4

    def test_tools_are_taken(self, engine: Engine) -> None:
        assert ask(engine, PROMPT, tools=[TOOL]).generations[0].tokens > 0

    def test_texts_are_not_scored_by_what_cannot(self, engine: Engine) -> None:
        if "score" not in engine.capabilities:
            with pytest.raises(AdjoinError):
                engine.add(ScoreRequest(id="s", query="x", texts=["y"]))

    def test_an_abort_says_what_was_used_and_frees_the_request(self, engine: Engine) -> None:
        engine.add(request_of("long", PROMPT, max_tokens=64))
        engine.add(request_of("other", PROMPT, max_tokens=4))
        outputs = engine.step()
        (aborted,) = engine.abort(["long"])
        assert isinstance(aborted, Finished)
        assert aborted.generations[0].finish_reason == "abort"
        assert aborted.usage.generated == sum(len(t.ids) for t in tokens_of(outputs, "long"))
        rest = drive(engine, ["other"])
        assert not tokens_of(rest, "long")
        assert engine.stats().running == 0

    def test_a_prompt_without_a_token_is_not_counted(self, engine: Engine) -> None:
        before = engine.stats()
        engine.add(request_of("left", PROMPT))
        (aborted,) = engine.abort(["left"])
        assert (aborted.usage.prompt, aborted.usage.generated) == (0, 0)
        assert engine.stats() == before

    def test_what_it_tells_prometheus_counts_what_it_did(self, engine: Engine) -> None:
        def told() -> dict[str, float]:
            samples = [sample for family in engine.figures() for sample in family.samples]
            return {sample.name.partition(":")[2]: sample.value for sample in samples}

        before = told()
        usage = ask(engine, PROMPT, max_tokens=5).usage
        after = told()
        if after:
            for kind, count in (("prompt", usage.prompt), ("generation", usage.generated)):
                name = f"{kind}_tokens_total"
                assert after[name] - before.get(name, 0) == count

    def test_an_abort_of_the_unknown_is_nothing(self, engine: Engine) -> None:
        assert engine.abort(["nobody"]) == []

    def test_usage_counts_prompt_and_answer(self, engine: Engine) -> None:
        before = engine.stats()
        finished = ask(engine, PROMPT, max_tokens=5)
        usage = finished.usage
        assert usage.generated == finished.generations[0].tokens == 5
        assert 0 < usage.prompt < 200
        assert 0 <= usage.cached < usage.prompt
        after = engine.stats()
        assert after.generated_tokens - before.generated_tokens == 5
        assert after.prompt_tokens - before.prompt_tokens == usage.prompt

    @pytest.mark.parametrize("prompt", ["", "  \n", []])
    def test_an_empty_prompt_is_refused(self, engine: Engine, prompt: str | list[Message]) -> None:
        with pytest.raises(InputError, match="empty"):
            engine.add(request_of("a", prompt))

    def test_a_prompt_longer_than_the_context_fails_alone(self, engine: Engine) -> None:
        engine.add(request_of("good", PROMPT, max_tokens=4))
        with pytest.raises(InputError) as caught:
            engine.add(request_of("long", "word " * 10_000))
        assert str(engine.context) in str(caught.value)
        assert str(caught.value.details["tokens"]) in str(caught.value)
        assert isinstance(drive(engine, ["good"])[-1], Finished)

    def test_messages_are_a_prompt_too(self, engine: Engine) -> None:
        messages = [Message(role="user", content=PROMPT)]
        as_messages = ask(engine, messages).generations[0]
        assert as_messages == ask(engine, PROMPT).generations[0]

    @pytest.mark.parametrize(
        "sampling", [{"max_tokens": 0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"n": 1000}]
    )
    def test_sampling_out_of_bounds_is_refused(
        self, engine: Engine, sampling: dict[str, float]
    ) -> None:
        with pytest.raises(InputError, match=next(iter(sampling))):
            engine.add(request_of("a", PROMPT, **sampling))


class EmbeddingContract:
    """For engines that embed."""

    @classmethod
    def load(cls) -> Engine:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        loaded = cls.load()
        yield loaded
        loaded.close()

    def embed(self, engine: Engine, texts: Sequence[str], id: str = "e") -> Vector:
        engine.add(EmbedRequest(id=id, texts=list(texts)))
        (output,) = drive(engine, [id])
        assert isinstance(output, Embedded), _reason(output)
        return output.vectors

    def test_vectors_are_unit_float32_of_the_stated_dimension(self, engine: Engine) -> None:
        vectors = self.embed(engine, ["a cat sat", "rain falls on the roof", "x"])
        assert vectors.dtype == np.float32
        assert vectors.shape == (3, engine.dimension)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    def test_a_batch_across_requests_equals_each_alone(self, engine: Engine) -> None:
        texts = ["short", "a rather longer text about rain " * 8, "of middling length, perhaps"]
        alone = [self.embed(engine, [text])[0] for text in texts]
        engine.add(EmbedRequest(id="one", texts=texts[:2]))
        engine.add(EmbedRequest(id="two", texts=texts[2:]))
        outputs = drive(engine, ["one", "two"])
        found = {output.id: output.vectors for output in outputs if isinstance(output, Embedded)}
        np.testing.assert_allclose(
            np.concatenate([found["one"], found["two"]]), np.stack(alone), atol=1e-5
        )

    def test_similar_texts_are_nearer(self, engine: Engine) -> None:
        rain, storm, tax = self.embed(
            engine, ["rain falls today", "rain falls tomorrow", "income tax form"]
        )
        assert rain @ storm > rain @ tax

    def test_embedded_tokens_are_counted(self, engine: Engine) -> None:
        before = engine.stats().embedded_tokens
        engine.add(EmbedRequest(id="e", texts=["one two three"]))
        (output,) = drive(engine, ["e"])
        assert isinstance(output, Embedded)
        assert output.usage.embedded >= 3
        assert engine.stats().embedded_tokens - before == output.usage.embedded

    def test_an_aborted_embedding_is_forgotten(self, engine: Engine) -> None:
        engine.add(EmbedRequest(id="gone", texts=["one"]))
        engine.add(EmbedRequest(id="kept", texts=["two"]))
        (aborted,) = engine.abort(["gone"])
        assert aborted == Finished(id="gone")
        assert [output.id for output in drive(engine, ["kept"])] == ["kept"]
        assert engine.stats().running == 0


class ScoringContract:
    """For engines that score."""

    @classmethod
    def load(cls) -> Engine:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        loaded = cls.load()
        yield loaded
        loaded.close()

    def score(self, engine: Engine, query: str, texts: Sequence[str]) -> tuple[float, ...]:
        engine.add(ScoreRequest(id="s", query=query, texts=list(texts)))
        (output,) = drive(engine, ["s"])
        assert isinstance(output, Scored), _reason(output)
        return output.scores

    def test_a_score_for_each_text_whatever_is_beside_it(self, engine: Engine) -> None:
        texts = ["rain falls", "a long text about something else " * 9, "tax"] * 8
        together = self.score(engine, "rain today", texts)
        alone = [self.score(engine, "rain today", [text])[0] for text in texts[:3]]
        np.testing.assert_allclose(together, alone * 8, atol=1e-4)

    def test_work_of_several_requests_is_kept_apart(self, engine: Engine) -> None:
        first, second = (self.score(engine, query, ["rain falls"]) for query in ("rain", "tax"))
        engine.add(ScoreRequest(id="one", query="rain", texts=["rain falls"]))
        engine.add(ScoreRequest(id="two", query="tax", texts=["rain falls"]))
        outputs = drive(engine, ["one", "two"])
        found = {output.id: output.scores for output in outputs if isinstance(output, Scored)}
        np.testing.assert_allclose([found["one"], found["two"]], [first, second], atol=1e-4)

    def test_tokens_are_counted_and_an_abort_is_forgotten(self, engine: Engine) -> None:
        before = engine.stats().embedded_tokens
        engine.add(ScoreRequest(id="gone", query="x", texts=["y"]))
        engine.add(ScoreRequest(id="kept", query="x", texts=["one two three"]))
        assert engine.abort(["gone"]) == [Finished(id="gone")]
        (output,) = drive(engine, ["kept"])
        assert isinstance(output, Scored)
        assert output.usage.embedded >= 3
        assert engine.stats().embedded_tokens - before == output.usage.embedded
        assert engine.stats().running == 0


def _reason(output: Output) -> AdjoinError | Output:
    return from_wire(output.error) if isinstance(output, Failed) else output
