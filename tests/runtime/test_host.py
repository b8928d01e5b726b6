"""Calls through a host, its template and its replicas, as real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from host_fixtures import (
    Observed,
    attached,
    fake,
    first_token,
    nothing,
    replica_of,
    replicas,
    say,
)

from adjoin.dag import ModelSpec
from adjoin.errors import EngineError, InputError, ModelError
from adjoin.runtime.host_link import HostLink
from adjoin.settings import Settings
from adjoin.types import ModelLoading, Sampling, Used


async def test_vectors_come_back_in_order_also_from_many_pieces(link: HostLink) -> None:
    seen = Observed()
    model = link.model("m", fake(dimension=8), observe=seen.append)
    texts = [f"text number {i}" for i in range(300)]
    vectors = await model.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (300, 8)
    np.testing.assert_allclose(vectors[170], (await model.embed([texts[170]]))[0], atol=1e-6)
    assert (await model.embed([])).shape == (0, 8)
    assert seen.of(Used)[0].usage.embedded == 900


async def test_a_hundred_cold_calls_are_one_load(link: HostLink) -> None:
    model = link.model("hundred", fake(load_s=0.2), observe=nothing)
    assert await asyncio.gather(*(say(model) for _ in range(100))) == ["one two three "] * 100
    assert len(await replicas(link, "hundred")) == 1


async def test_names_of_the_same_model_share_a_replica_and_arguments_divide(link: HostLink) -> None:
    spec = fake()
    other = ModelSpec(source=spec.source, args={"dimension": 4})
    for name, one in (("first", spec), ("second", spec), ("third", other)):
        await say(link.model(name, one, observe=nothing))
    found = [len(await replicas(link, name)) for name in ("first", "second", "third")]
    assert found == [1, 0, 1]


async def test_two_agents_share_a_replica(link: HostLink, host_directory: Path) -> None:
    other = await HostLink.attach(host_directory, Settings(home=host_directory / "home"))
    spec = fake(load_s=0.1)
    await asyncio.gather(*(say(x.model("both", spec, observe=nothing)) for x in (link, other)))
    assert (await other.status())["agents"] == 2
    assert len(await replicas(link, "both")) == 1
    await other.detach()


async def test_a_killed_replica_fails_calls_at_once_and_the_next_call_works(link: HostLink) -> None:
    model = link.model("killed", fake(words=1000, interval_s=0.01), observe=nothing)
    stream, _ = await first_token(model)
    replica = await replica_of(link, "killed")
    began = time.monotonic()
    os.kill(replica["pid"], signal.SIGKILL)
    with pytest.raises(EngineError, match="died") as caught:
        async for _ in stream:
            pass
    assert time.monotonic() - began < 1
    assert caught.value.retryable
    assert replica["log"] in str(caught.value)
    assert await say(model, max_tokens=2) == "one two "
    assert (await replica_of(link, "killed"))["pid"] != replica["pid"]


async def test_a_replica_that_died_unseen_is_replaced_before_the_call(link: HostLink) -> None:
    model = link.model("idle", fake(), observe=nothing)
    for _ in range(5):
        await say(model)
        os.kill((await replica_of(link, "idle"))["pid"], signal.SIGKILL)
        while (await replicas(link, "idle")) != []:
            pass
    assert await say(model) == "one two three "


async def test_a_crash_in_mid_stream_is_an_error_and_not_an_end(link: HostLink) -> None:
    model = link.model("m", fake(words=9, interval_s=0.01, crash_after=3), observe=nothing)
    tokens = []
    with pytest.raises(EngineError, match="died"):
        async for token in model.generate("a b c", Sampling()):
            tokens.append(token)
    assert len(tokens) <= 2


async def test_out_of_memory_says_so_and_the_model_is_loaded_afresh(link: HostLink) -> None:
    model = link.model("m", fake(words=9, out_of_memory_after=3), observe=nothing)
    for _ in range(5):
        with pytest.raises(EngineError, match="out of memory"):
            await say(model)
        assert await say(model, max_tokens=2) == "one two "


async def test_all_calls_of_a_lost_engine_are_told_why(link: HostLink) -> None:
    spec = fake(words=9, interval_s=0.01, out_of_memory_after=5, max_num_seqs=2)
    model = link.model("m", spec, observe=nothing)
    results = await asyncio.gather(*(say(model) for _ in range(6)), return_exceptions=True)
    assert all("out of memory" in str(result) for result in results), results


async def test_closing_the_stream_aborts_in_the_replica(link: HostLink) -> None:
    seen = Observed()
    spec = fake(words=1000, interval_s=0.01)
    stream, _ = await first_token(link.model("closed", spec, observe=seen.append))
    assert (await replica_of(link, "closed"))["running"] == 1
    await stream.aclose()
    assert (await replica_of(link, "closed"))["running"] == 0
    assert 0 < seen.of(Used)[0].usage.generated < 100


async def test_an_abort_interrupts_a_wait_for_the_first_token(link: HostLink) -> None:
    seen = Observed()
    model = link.model("waiting", fake(first_token_s=60), observe=seen.append)
    await model.embed(["warm"])
    seen.clear()
    call = asyncio.create_task(say(model))
    while (await replica_of(link, "waiting"))["running"] == 0:
        pass
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await replica_of(link, "waiting"))["running"] == 0
    assert len(seen.of(Used)) == 1


async def test_a_waiting_request_can_be_withdrawn(link: HostLink) -> None:
    spec = fake(words=1000, interval_s=0.01, max_num_seqs=1)
    model = link.model("busy", spec, observe=nothing)
    running, _ = await first_token(model)
    waiting = asyncio.create_task(say(model))
    while (await replica_of(link, "busy"))["queued"] == 0:
        pass
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    replica = await replica_of(link, "busy")
    assert (replica["queued"], replica["running"]) == (0, 1)
    await running.aclose()


async def test_a_lost_agent_has_its_requests_aborted(link: HostLink, host_directory: Path) -> None:
    agent = await HostLink.attach(host_directory, Settings(home=host_directory / "home"))
    spec = fake(words=100_000, interval_s=0.01)
    stream, _ = await first_token(agent.model("lost", spec, observe=nothing))
    assert (await replica_of(link, "lost"))["running"] == 1
    await agent.detach()
    async with asyncio.timeout(5):
        while (await replica_of(link, "lost"))["running"]:
            pass
    with pytest.raises(EngineError):
        async for _ in stream:
            pass


async def test_a_host_that_was_shut_down_is_not_started_again(link: HostLink) -> None:
    model = link.model("m", fake(), observe=nothing)
    await say(model)
    await link.shutdown()
    with pytest.raises(EngineError, match="shut down"):
        await say(model)


async def test_ctrl_c_does_not_reach_the_tree(link: HostLink) -> None:
    model = link.model("ctrl", fake(), observe=nothing)
    await say(model)
    status = await link.status()
    replica = await replica_of(link, "ctrl")
    for pid in (status["pid"], replica["pid"], status["templates"][0]["pid"]):
        assert os.getsid(pid) == pid
        os.kill(pid, signal.SIGINT)
    assert await say(model) == "one two three "
    assert (await replica_of(link, "ctrl"))["pid"] == replica["pid"]


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ({"fail_at_load": "the weights are odd"}, ModelError, "weights are odd"),
        ({"crash_at_load": True}, EngineError, "died by SIGKILL"),
        ({"out_of_memory_at_load": True}, EngineError, "out of memory"),
        ({"dimensoin": 4}, InputError, "did you mean 'dimension'"),
        ({"dimension": "four"}, InputError, "dimension"),
        ({"answer": "x" * 100_000}, InputError, "too large"),
    ],
)
async def test_a_load_that_fails_says_why(
    link: HostLink, args: dict[str, str], error: type[Exception], says: str
) -> None:
    model = link.model("m", fake(**args), observe=nothing)
    with pytest.raises(error, match=says) as caught:
        await say(model)
    assert "'m'" in str(caught.value) or "model args" in str(caught.value)


async def test_a_model_that_never_loads_is_not_tried_for_ever(link: HostLink) -> None:
    model = link.model("never", fake(crash_at_load=True), observe=(seen := Observed()).append)
    for _ in range(3):
        with pytest.raises(EngineError, match="died"):
            await say(model)
    seen.clear()
    with pytest.raises(EngineError, match="3 times in a row") as caught:
        await say(model)
    assert caught.value.details["retry_after"] > 0
    assert all(body.phase == "resolve" for body in seen.of(ModelLoading))


async def test_preparing_loads_ahead(link: HostLink) -> None:
    spec = fake()
    await link.prepare({"ahead": spec, "bad": fake(fail_at_load="no")})
    async with asyncio.timeout(10):
        while [r["state"] for r in await replicas(link, "ahead")] != ["ready"]:
            pass
    seen = Observed()
    await say(link.model("ahead", spec, observe=seen.append))
    assert seen.of(ModelLoading) == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (ModelSpec(source="x", engine="vlm"), "did you mean 'vllm'"),
        (ModelSpec(source="no such model"), "no such model"),
    ],
)
async def test_an_unknown_engine_or_model_is_refused(
    link: HostLink, spec: ModelSpec, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        await say(link.model("m", spec, observe=nothing))


async def test_a_request_that_fails_does_not_hurt_its_neighbours(link: HostLink) -> None:
    model = link.model("m", fake(max_model_len=10), observe=nothing)
    results = await asyncio.gather(
        say(model), say(model, "word " * 50), say(model, ""), say(model), return_exceptions=True
    )
    assert [type(result) for result in results] == [str, InputError, InputError, str]
    assert "50" in str(results[1])


async def test_garbage_on_a_socket_closes_only_that_connection(
    link: HostLink, host_directory: Path
) -> None:
    model = link.model("m", fake(), observe=nothing)
    await say(model)
    for path in host_directory.glob("*.sock"):
        for garbage in (b"\x00\x00\x00\x03abc", b"\xff" * 8):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(garbage)
            async with asyncio.timeout(5):
                with suppress(ConnectionResetError):
                    assert await reader.read() == b"" or path.name == "host.sock"
            writer.close()
    assert await say(model) == "one two three "


async def test_processes_and_descriptors_do_not_grow(link: HostLink) -> None:
    async def cycle() -> None:
        model = link.model("cycle", fake(), observe=nothing)
        await say(model)
        os.kill((await replica_of(link, "cycle"))["pid"], signal.SIGKILL)
        while await replicas(link, "cycle"):
            pass

    pid = (await link.status())["pid"]
    await cycle()
    before = (_descriptors(pid), _descriptors(os.getpid()))
    for _ in range(5):
        await cycle()
    after = (_descriptors(pid), _descriptors(os.getpid()))
    assert after[0] <= before[0]
    assert after[1] <= before[1]


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a count of names


@pytest.mark.parametrize(("sequences", "mixed"), [(0, True), (1, False)])
async def test_one_sequence_at_a_time(tmp_path: Path, sequences: int, mixed: bool) -> None:
    """The engine mixes up what is in it together, if it ever has two."""
    prompts = [f"{word} {word}" for word in ("one", "two", "three", "four")]
    async with attached(tmp_path, replica_sequences=sequences) as link:
        model = link.model("m", fake(mix_up=True, words=20, interval_s=0.02), observe=nothing)
        await say(model)
        answers = await asyncio.gather(*(say(model, prompt) for prompt in prompts))
    firsts = [answer.split()[0] for answer in answers]
    assert (firsts != [prompt.split()[0] for prompt in prompts]) is mixed
