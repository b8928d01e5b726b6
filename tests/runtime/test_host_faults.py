"""The life and death of hosts: each test has one of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest
from host_fixtures import (
    Death,
    Observed,
    attached,
    fake,
    first_token,
    nothing,
    replica_of,
    say,
    tree,
)

from adjoin.errors import EngineError
from adjoin.runtime.host_link import HostLink
from adjoin.runtime.policies.retry import may_retry
from adjoin.settings import Settings
from adjoin.types import ModelLoading, ModelReady, Used

SLOW = fake(words=100_000, interval_s=0.01)


async def test_a_cold_call_reports_its_start_and_a_warm_one_does_not(tmp_path: Path) -> None:
    # Deeper than a socket's address may be long.
    directory = tmp_path / ("d" * 80) / ("e" * 80)
    async with attached(directory) as link:
        seen = Observed()
        model = link.model("m", SLOW, observe=seen.append)
        assert await say(model, max_tokens=2) == "one two "
        phases = [body.phase for body in seen.of(ModelLoading)]
        assert phases == ["resolve", "template", "fork", "load"]
        (ready,) = seen.of(ModelReady)
        (used,) = seen.of(Used)
        assert used.usage.cold_start_seconds == ready.seconds > 0
        assert (used.usage.prompt, used.usage.generated) == (3, 2)

        seen.clear()
        assert await say(model, max_tokens=2) == "one two "
        assert [type(body) for body in seen] == [Used]
        assert seen.of(Used)[0].usage.cold_start_seconds == 0

        assert directory.stat().st_mode & 0o777 == 0o700
        sockets = list(directory.glob("*.sock"))
        assert [path.stat().st_mode & 0o777 for path in sockets] == [0o600, 0o600]


async def test_agents_that_attach_at_once_find_one_host(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    links = await asyncio.gather(*(HostLink.attach(tmp_path, settings) for _ in range(8)))
    assert len({(await link.status())["pid"] for link in links}) == 1
    await asyncio.gather(*(link.detach() for link in links[1:]))
    await links[0].shutdown()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_a_host_takes_its_tree_along_and_the_next_call_starts_anew(
    tmp_path: Path, how: signal.Signals
) -> None:
    async with attached(tmp_path) as link:
        model = link.model("m", SLOW, observe=nothing)
        stream, _ = await first_token(model)
        deaths = await tree(link)
        lost = (await link.status())["pid"]
        os.kill(lost, how)
        with pytest.raises(EngineError):
            async for _ in stream:
                pass
        await asyncio.gather(*(death.wait() for death in deaths.values()))
        assert await say(model, max_tokens=2) == "one two "
        assert (await link.status())["pid"] != lost


async def test_who_attaches_to_a_stopped_host_gets_another_one(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", heartbeat_s=0.1, host_linger_s=60)
    first = await HostLink.attach(tmp_path, settings)
    stopped = (await first.status())["pid"]
    await first.detach()  # nobody watches it now
    death = Death(stopped)
    os.kill(stopped, signal.SIGSTOP)
    second = await HostLink.attach(tmp_path, settings)
    await death.wait()
    assert (await second.status())["pid"] != stopped
    await second.shutdown()


async def test_who_gives_up_attaching_does_not_keep_the_host(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", host_linger_s=0.1, heartbeat_s=60)
    first = await HostLink.attach(tmp_path, settings)
    pid = (await first.status())["pid"]
    os.kill(pid, signal.SIGSTOP)  # with so slow a heart nobody notices
    attaching = asyncio.create_task(HostLink.attach(tmp_path, settings))
    while len(asyncio.all_tasks()) < 6:  # the test, the first's two, the second and its two
        await asyncio.sleep(0.01)
    attaching.cancel()
    await asyncio.gather(attaching, return_exceptions=True)
    death = Death(pid)
    os.kill(pid, signal.SIGCONT)
    await first.detach()
    await death.wait()


async def test_a_host_that_answers_late_but_lives_is_left_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", heartbeat_s=0.1, silence_s=0.3)
    link = await HostLink.attach(tmp_path, settings)
    pid = (await link.status())["pid"]
    threading.Event().wait(1.0)  # this loop hears nothing meanwhile, whatever the host says
    for _ in range(5):
        await asyncio.sleep(0.1)  # beats of the watch, which it must not use against the host
    assert (await link.status())["pid"] == pid
    await link.shutdown()


async def test_a_host_killed_during_a_load_leaves_nothing(tmp_path: Path) -> None:
    async with attached(tmp_path) as link:
        model = link.model("m", fake(load_s=60), observe=(seen := Observed()).append)
        call = asyncio.create_task(say(model))
        while not any(body.phase == "load" for body in seen.of(ModelLoading)):
            await asyncio.sleep(0)
        deaths = await tree(link)
        assert len(deaths) == 3
        os.kill((await link.status())["pid"], signal.SIGKILL)
        with pytest.raises(EngineError, match="host"):
            await call
        await asyncio.gather(*(death.wait() for death in deaths.values()))


async def test_a_killed_template_leaves_its_replicas_and_is_replaced(tmp_path: Path) -> None:
    async with attached(tmp_path) as link:
        stream, _ = await first_token(link.model("m", SLOW, observe=nothing))
        (template,) = (await link.status())["templates"]
        death = Death(template["pid"])
        os.kill(template["pid"], signal.SIGKILL)
        await death.wait()
        assert await anext(stream)
        await stream.aclose()
        assert await say(link.model("n", fake(), observe=nothing)) == "one two three "
        (fresh,) = (await link.status())["templates"]
        assert fresh["pid"] != template["pid"]
        # The orphan still dies with the host.
        deaths = await tree(link)
        await link.shutdown()
        await asyncio.gather(*(death.wait() for death in deaths.values()))


async def test_shutdown_leaves_no_process_also_when_one_hangs(tmp_path: Path) -> None:
    async with attached(tmp_path) as link:
        hung, _ = await first_token(link.model("m", fake(words=9, hang_after=2), observe=nothing))
        loading = asyncio.create_task(say(link.model("n", fake(load_s=60), observe=nothing)))
        while len((await link.status())["replicas"]) < 2:
            pass
        deaths = await tree(link)
        assert len(deaths) == 4
        replica = await replica_of(link, "m")
        environment = Path(f"/proc/{replica['pid']}/environ").read_bytes().split(b"\0")
        assert f"TMPDIR={tmp_path}/tmp".encode() in environment
        (tmp_path / "tmp" / "left by a replica").touch()
        await link.shutdown()
        await asyncio.gather(*(death.wait() for death in deaths.values()))
        for call in (anext(hung), loading):
            with pytest.raises(EngineError):
                await call
        assert list(tmp_path.glob("*.sock")) == []
        assert not (tmp_path / "tmp").exists()


async def test_a_host_without_agents_ends_after_a_while(tmp_path: Path) -> None:
    link = await HostLink.attach(tmp_path, Settings(home=tmp_path / "home", host_linger_s=0.1))
    await say(link.model("m", fake(), observe=nothing))
    deaths = await tree(link)
    await link.detach()
    await asyncio.gather(*(death.wait() for death in deaths.values()))


async def test_a_host_outlives_an_agent_that_comes_back(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", host_linger_s=30)
    link = await HostLink.attach(tmp_path, settings)
    await say(link.model("m", SLOW, observe=nothing), max_tokens=1)
    before = await replica_of(link, "m")
    await link.detach()
    async with attached(tmp_path) as again:
        seen = Observed()
        await say(again.model("m", SLOW, observe=seen.append), max_tokens=1)
        assert (await replica_of(again, "m"))["pid"] == before["pid"]
        assert seen.of(ModelLoading) == []


async def test_a_load_has_its_time_and_no_process_stays(tmp_path: Path) -> None:
    async with attached(tmp_path, load_timeout_s=2) as link:
        seen = Observed()
        with pytest.raises(EngineError, match=r"not ready after 2 s.*'load'"):
            await say(link.model("m", fake(load_s=60), observe=seen.append))
        async with asyncio.timeout(5):
            while (await link.status())["replicas"]:
                pass


async def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineError, match="cannot be used"):
        await HostLink.attach(tmp_path / "file" / "host", Settings(home=tmp_path))


async def test_a_host_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(EngineError, match=r"could not be started.*host\.log"):
        await HostLink.attach(tmp_path, Settings(home=tmp_path))


async def test_a_replica_that_is_stopped_is_killed_and_its_calls_fail(tmp_path: Path) -> None:
    async with attached(tmp_path) as link:
        model = link.model("m", SLOW, observe=nothing)
        stream, _ = await first_token(model)
        before = await replica_of(link, "m")
        os.kill(before["pid"], signal.SIGSTOP)
        with pytest.raises(EngineError) as failed:
            async for _ in stream:
                pass
        assert may_retry(failed.value, 1, 1, tokens_seen=False)
        assert "was stopped" in Path(before["log"]).read_text()
        assert await say(model, max_tokens=2) == "one two "
        assert (await replica_of(link, "m"))["pid"] != before["pid"]


async def test_an_engine_that_hangs_is_killed_and_its_calls_fail(tmp_path: Path) -> None:
    async with attached(tmp_path, engine_stall_s=1.0, heartbeat_s=0.1) as link:
        model = link.model("m", fake(words=9, hang_after=3), observe=nothing)
        stream, _ = await first_token(model)
        before = await replica_of(link, "m")
        with pytest.raises(EngineError):
            async for _ in stream:
                pass
        assert "no progress in a step" in Path(before["log"]).read_text()
        assert await say(model, max_tokens=2) == "one two "


async def test_a_step_that_computes_is_not_taken_for_a_hang(tmp_path: Path) -> None:
    async with attached(tmp_path, engine_stall_s=0.4, heartbeat_s=0.1) as link:
        model = link.model("m", fake(first_token_s=1.2, compute=True), observe=nothing)
        assert await say(model, max_tokens=2) == "one two "
