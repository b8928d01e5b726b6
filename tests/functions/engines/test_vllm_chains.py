"""What chains of thought need of vLLM, on the small model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import jsonschema
import pytest

from adjoin.functions.engines import Engine, LoadSpec, find
from adjoin.functions.engines.base import Delta, Finished, GenerateRequest, Output
from adjoin.functions.models import ModelStore
from adjoin.runtime.policies.batching import Limits
from adjoin.runtime.step_loop import StepLoop
from adjoin.settings import Settings
from adjoin.types import Sampling, Usage

pytestmark = [
    pytest.mark.models,
    pytest.mark.timeout(600),
    # What vLLM and its libraries warn of is not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]

WORDS = "The river runs past the old mill and the keeper counts the boats that come by each day. "
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 20},
        "genre": {"enum": ["crime", "poetry", "history"]},
        "author": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 20},
                "born": {"type": "integer", "minimum": 1500, "maximum": 2020},
                "language": {"enum": ["English", "German", None]},
            },
            "required": ["name", "born", "language"],
        },
        "ratings": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"stars": {"type": "integer", "minimum": 1, "maximum": 5}},
                "required": ["stars"],
            },
            "minItems": 1,
            "maxItems": 3,
        },
    },
    "required": ["title", "genre", "author", "ratings"],
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    pytest.importorskip("vllm")
    files = ModelStore(Settings.load().home).resolve("smollm2-135m")
    module = find("vllm").resolve()
    module.warm()
    spec = LoadSpec(
        model="smollm2-135m",
        engine="vllm",
        kind=files.kind,
        path=str(files.path),
        args={"max_model_len": 2048},
        threads=2,
    )
    loaded = module.load(spec)
    yield loaded
    loaded.close()


def run_all(engine: Engine, requests: Sequence[GenerateRequest]) -> dict[str, Output]:
    """The ends of requests that go through a replica's loop, all at once."""
    said: list[Output] = []

    def take(outputs: list[Output], *, last: bool = False) -> None:
        said.extend(outputs)

    loop = StepLoop(engine, Limits(capacity=engine.capacity), take)
    for request in requests:
        loop.submit(request)
    ends: dict[str, Output] = {}
    while len(ends) < len(requests):
        loop.turn()
        ends |= {output.id: output for output in said if not isinstance(output, Delta)}
    return ends


def run(engine: Engine, requests: Sequence[GenerateRequest]) -> dict[str, Finished]:
    ends = run_all(engine, requests)
    return {id: end for id, end in ends.items() if isinstance(end, Finished)}


def request(
    id: str, prompt: str, *, salt: str = "", schema: str = "", raw: bool = False, **sampling: object
) -> GenerateRequest:
    settings = Sampling(**{"max_tokens": 24, **sampling})  # type: ignore[arg-type]
    return GenerateRequest(
        id=id, prompt=prompt, sampling=settings, salt=salt, schema=schema, raw=raw
    )


def computed(usage: Usage) -> int:
    return usage.prompt - usage.cached


# --- a prompt is computed once --------------------------------------------------------------------


@pytest.mark.parametrize("form", ["one request", "eight requests"])
def test_eight_samples_compute_one_prompt(engine: Engine, form: str) -> None:
    prompt = WORDS * 40 + f"How many boats came by, in {form}?"
    sampling = {"temperature": 0.8, "salt": form}
    if form == "one request":
        requests = [request("a", prompt, n=8, **sampling)]  # type: ignore[arg-type]
    else:
        requests = [request(str(at), prompt, seed=at, **sampling) for at in range(8)]  # type: ignore[arg-type]
    usages = [end.usage for end in run(engine, requests).values()]
    prompt_tokens = sum(usage.prompt for usage in usages) / 8
    ratio = sum(map(computed, usages)) / prompt_tokens
    print(f"{form}: {prompt_tokens:.0f} prompt tokens, computed {ratio:.3f} times")
    assert ratio <= 1.02


@pytest.mark.parametrize("length", [*range(60, 68), 95, 96, 97, 300])
def test_a_copied_block_says_what_a_computed_one_says(engine: Engine, length: int) -> None:
    """At all remainders of the block's size around its edges."""
    prompt = "boat " * length
    alone = run(engine, [request("x", prompt, raw=True, salt=f"alone {length}")])["x"]
    shared = [request(str(at), prompt, raw=True, salt=f"shared {length}") for at in range(4)]
    ends = run(engine, shared)
    assert {end.generations[0].text for end in ends.values()} == {alone.generations[0].text}
    first, *others = sorted((computed(end.usage) for end in ends.values()), reverse=True)
    assert first == alone.usage.prompt
    assert others == [1, 1, 1]


def test_prompts_that_part_within_a_block_share_what_is_equal(engine: Engine) -> None:
    common = WORDS * 20
    endings = ["Who counts the boats?", "Who counts the days?", "Where is the mill?"]
    alone = [
        run(engine, [request("x", common + each, salt=f"apart {each}")])["x"] for each in endings
    ]
    long = request("long", common + endings[0], max_tokens=48, salt="parting")
    others = [request(each, common + each, salt="parting") for each in endings]
    ends = run(engine, [long, *others])
    for each, expected in zip(endings, alone, strict=True):
        assert ends[each].generations[0].text == expected.generations[0].text
    assert computed(ends[endings[2]].usage) < 32


def test_a_seed_repeats_after_a_prompt_that_is_computed_in_chunks(engine: Engine) -> None:
    def said(salt: str, seed: int) -> str:
        asked = request("a", WORDS * 40, salt=salt, temperature=1.0, seed=seed)
        return run(engine, [asked])["a"].generations[0].text

    # computed in four chunks, found in the cache, computed again
    texts = [said("seeds", 1), said("seeds", 1), said("other", 1)]
    assert len(set(texts)) == 1
    assert said("seeds", 2) != texts[0]


def test_other_salts_share_nothing(engine: Engine) -> None:
    prompt = "boat " * 20  # less than a block: only the tail could be shared
    ends = run(engine, [request(salt, prompt, raw=True, salt=salt) for salt in ("mine", "yours")])
    assert [computed(end.usage) for end in ends.values()] == [
        end.usage.prompt for end in ends.values()
    ]


# --- structured output ----------------------------------------------------------------------------


def test_twenty_answers_fit_a_nested_schema(engine: Engine) -> None:
    asked = "Describe a book as JSON with title, genre, author and ratings."
    requests = [
        request(str(at), asked, schema=json.dumps(SCHEMA), temperature=1.0, seed=at, max_tokens=200)
        for at in range(20)
    ]
    values = [json.loads(end.generations[0].text) for end in run(engine, requests).values()]
    for value in values:
        jsonschema.validate(value, SCHEMA)
    assert len({json.dumps(value) for value in values}) > 10


LAUGHS = {
    "$ref": "#/$defs/d0",
    "$defs": {f"d{at}": {"anyOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(24)}
    | {"d24": {}},
}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        LAUGHS,
        {"type": "string", "pattern": "(a{1000}){1000}"},
        {"type": "string", "format": "no such"},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
    ],
)
def test_a_schema_that_makes_no_grammar_fails_alone(
    engine: Engine, schema: dict[str, object]
) -> None:
    asked = "Say something."
    bad = request("bad", asked, schema=json.dumps(schema), max_tokens=8)
    ends = run_all(engine, [bad, request("good", asked, max_tokens=8)])
    good = ends["good"]
    assert isinstance(good, Finished)
    assert good.generations[0].tokens > 0
    print(schema, ends["bad"])
