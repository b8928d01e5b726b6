"""The ledger beside vLLM's own counters, in a real `adjoin serve`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Process
from waiting import until

from adjoin import Settings
from adjoin.runtime.database import open_file, state_path
from adjoin.runtime.gateway.keys import KeyStore

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("fresh_home")]

MODEL = "smollm2-135m"
RULES = "You answer in one short sentence, and you never make anything up. " * 12
#: Longer than a step of the engine computes, so that it can be left before its first token.
LONG = "A line of a long document that nobody will read to its end. " * 100


@pytest.fixture
def service() -> Iterator[tuple[str, str]]:
    settings = Settings.load()
    store = KeyStore(open_file(state_path(settings)))
    _, key = store.create("default", ["invoke", "observe"])
    with Process(settings.home) as service:
        yield service.url, key


def chat(ai: openai.OpenAI, text: str, **more: Any) -> Any:
    messages: Any = [{"role": "system", "content": RULES}, {"role": "user", "content": text}]
    return ai.chat.completions.create(
        **({"model": MODEL, "messages": messages, "max_tokens": 12} | more)
    )


def leave(ai: openai.OpenAI, text: str, after: int, **more: Any) -> None:
    """Ask for a stream and go after so many chunks."""
    with chat(ai, text, stream=True, max_tokens=200, extra_body={"ignore_eos": True}) as stream:
        for _, _chunk in zip(range(after), stream, strict=False):
            pass


def counted(client: httpx2.Client) -> dict[str, float]:
    """What vLLM counted, of all replicas."""
    names = {
        "vllm:prompt_tokens_total": "prompt",
        "vllm:generation_tokens_total": "generated",
        "vllm:prompt_tokens_cached_total": "cached",
        "vllm:num_requests_running": "running",
    }
    totals = dict.fromkeys(names.values(), 0.0)
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name in names:
                assert sample.labels["model"] == sample.labels["model_name"] == MODEL
                totals[names[sample.name]] += sample.value
    return totals


def billed(client: httpx2.Client) -> dict[str, float]:
    """What the ledger has, whoever bears it."""
    (line,) = client.get("/api/v1/usage", params={"by": "model"}).json()["usage"]
    return {
        kind: sum(line[part][kind] for part in ("billed", "wasted", "open"))
        for kind in ("prompt", "generated", "cached")
    }


def test_the_ledger_equals_what_vllm_counted_to_the_token(service: tuple[str, str]) -> None:
    url, key = service
    headers = {"Authorization": f"Bearer {key}"}
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, timeout=300) as ai,
        httpx2.Client(base_url=url, headers=headers, timeout=30) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        chat(ai, "Who are you?")
        towns = ("Rome", "Oslo", "Lima", "Bern")
        shared = [threads.submit(chat, ai, f"Where is {town}?", temperature=0) for town in towns]
        samples = [
            threads.submit(chat, ai, "Name a colour.", n=2, temperature=1.0, seed=5),
            threads.submit(chat, ai, "Name a colour.", n=3, temperature=1.0, stop=["e"]),
        ]
        left = threads.submit(leave, ai, "Count to a thousand.", 4)
        for each in (*shared, *samples, left):
            each.result()
        prompts = ["One, two, three,", "To be or not to"]
        asked = [ai.completions.create(model=MODEL, prompt=one, max_tokens=9) for one in prompts]
        assert all(each.usage for each in asked)
        with pytest.raises(openai.APITimeoutError):
            chat(ai.with_options(timeout=0.4, max_retries=0), LONG)
        until(lambda: counted(client)["running"] == 0)
        until(lambda: billed(client)["generated"] == counted(client)["generated"])
        ours, theirs = billed(client), counted(client)
        assert (ours["prompt"], ours["generated"]) == (theirs["prompt"], theirs["generated"])
        assert ours["cached"] == theirs["cached"]
        assert theirs["generated"] > 100
        assert 0 < theirs["cached"] < theirs["prompt"]
