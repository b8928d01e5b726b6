"""The official client, a real `adjoin serve`, real models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from serving import Process
from tokenizers import Tokenizer

from adjoin import Settings
from adjoin.functions.models.store import ModelStore
from adjoin.runtime.database import open_file, state_path
from adjoin.runtime.gateway.keys import KeyStore

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("fresh_home")]

QUESTION: Any = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "big": {"type": "boolean"}},
    "required": ["city", "big"],
}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}


@pytest.fixture
def ai() -> Iterator[openai.OpenAI]:
    settings = Settings.load()
    _, key = KeyStore(open_file(state_path(settings))).create("default", ["invoke"])
    with (
        Process(settings.home) as service,
        openai.OpenAI(base_url=f"{service.url}/v1", api_key=key, timeout=300) as client,
    ):
        yield client


def test_a_real_model_answers(ai: openai.OpenAI) -> None:
    asked: Any = {"model": "smollm2-135m", "messages": QUESTION, "temperature": 0}
    whole = ai.chat.completions.create(**asked, max_tokens=24)
    text = whole.choices[0].message.content
    assert text is not None
    assert "Paris" in text
    assert whole.usage is not None
    assert whole.usage.prompt_tokens > 10

    chunks = list(ai.chat.completions.create(**asked, max_tokens=24, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text

    logged = ai.chat.completions.create(**asked, max_tokens=8, logprobs=True)
    assert logged.choices[0].logprobs is not None
    entries = logged.choices[0].logprobs.content or []
    assert "".join(entry.token for entry in entries) == logged.choices[0].message.content
    assert all(entry.logprob <= 0 for entry in entries)

    likely = ai.chat.completions.create(**asked, max_tokens=4, logprobs=True, top_logprobs=5)
    assert likely.choices[0].logprobs is not None
    for entry in likely.choices[0].logprobs.content or []:
        chances = [each.logprob for each in entry.top_logprobs]
        assert len(chances) == 5 and chances == sorted(chances, reverse=True)
        # the likeliest is drawn at temperature 0
        assert entry.top_logprobs[0].logprob == entry.logprob

    # The likeliest first token, by its id, and what is said once it cannot be.
    first = entries[0].token
    files = Path(ModelStore(Settings.load().home).resolve("smollm2-135m", for_engine="vllm").path)
    tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
    (id,) = tokenizer.encode(first, add_special_tokens=False).ids
    banned = str(id)
    other = ai.chat.completions.create(**asked, max_tokens=4, logit_bias={banned: -100})
    assert not (other.choices[0].message.content or first).startswith(first)
    forced = ai.chat.completions.create(**asked, max_tokens=3, logit_bias={banned: 100})
    assert forced.choices[0].message.content == first * 3
    with pytest.raises(openai.BadRequestError, match="vocab"):
        ai.chat.completions.create(**asked, logit_bias={"999999": 1})

    fixed = ai.chat.completions.create(
        **asked, max_tokens=20, extra_body={"ignore_eos": True, "min_tokens": 20}
    )
    assert fixed.usage is not None
    assert (fixed.usage.completion_tokens, fixed.choices[0].finish_reason) == (20, "length")

    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
    held = ai.chat.completions.create(**asked, response_format=form, max_tokens=60)
    value = json.loads(held.choices[0].message.content or "")
    assert set(value) == {"city", "big"}

    called = ai.chat.completions.create(
        **asked, tools=[WEATHER], tool_choice="required", max_tokens=60
    )
    assert called.choices[0].finish_reason == "tool_calls"
    calls: Any = called.choices[0].message.tool_calls
    (call,) = calls
    assert call.type == "function"
    assert set(json.loads(call.function.arguments)) == {"city"}

    prompt = "One, two, three, four,"
    gone_on = ai.completions.create(model="smollm2-135m", prompt=prompt, temperature=0, logprobs=0)
    assert gone_on.choices[0].text.strip().startswith("five")
    assert gone_on.choices[0].logprobs is not None
    assert len(gone_on.choices[0].logprobs.tokens or ()) == 16
    ranked = ai.completions.create(model="smollm2-135m", prompt=prompt, temperature=0, logprobs=2)
    assert ranked.choices[0].logprobs is not None
    tops = ranked.choices[0].logprobs.top_logprobs or []
    assert [len(each) for each in tops] == [2] * 16
    assert all(next(iter(each)) == max(each, key=each.__getitem__) for each in tops)

    texts = ["a cat purrs", "a kitten meows", "stocks fell on Monday"]
    found = ai.embeddings.create(model="minilm", input=texts)
    vectors = np.array([each.embedding for each in found.data])
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert found.usage.prompt_tokens > 9
