"""kill -9 of each kind of process: the next run works, and a run in the middle never hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import flows
import psutil
import pytest

from adjoin import Runtime, Settings, StageError
from adjoin.runtime.policies.placement import owner_of
from adjoin.types import RunCompleted, RunFailed, Tokens, WorkerLost


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def workers(runtime: Runtime) -> dict[str, int]:
    return {worker["name"]: worker["pid"] for worker in runtime.status()["workers"]}


def host(runtime: Runtime) -> dict[str, object]:
    (found,) = runtime.status()["hosts"].values()
    return dict(found)


def replica_of(runtime: Runtime, model: str) -> int:
    return next(int(r["pid"]) for r in host(runtime)["replicas"] if r["model"] == model)  # type: ignore[attr-defined]


def test_a_worker_killed_between_runs_breaks_nothing(runtime: Runtime) -> None:
    runtime.collection("animals", embedding="fake:").add_texts({"cat": "cats purr"})
    runtime.run(flows.search, question="cats")
    for _ in range(2):
        victim = runtime.explain(flows.search).plan.segments[0].worker
        kill(workers(runtime)[victim])
        assert runtime.run(flows.search, question="cats purr")[0].text == "cats purr"


def test_both_workers_killed_at_once_come_back(runtime: Runtime) -> None:
    for pid in workers(runtime).values():
        kill(pid)
    assert runtime.run(flows.chain, text="abc")["text"] == "ABC has 3"


def test_a_worker_killed_in_a_stage_costs_an_attempt(runtime: Runtime, tmp_path: Path) -> None:
    handle = runtime.submit(flows.dying_once, mark=str(tmp_path / "mark"))
    assert handle.result(30) == "survived"
    lost = [event.body for event in handle.events() if isinstance(event.body, WorkerLost)]
    assert lost[0].stages == ("die_once",)


def test_a_value_that_cannot_travel_is_made_again_where_it_is_used(
    runtime: Runtime, tmp_path: Path
) -> None:
    made, used = runtime.run(flows.connected, mark=str(tmp_path / "mark"))
    assert made == used
    assert made in workers(runtime).values()


def test_input_that_kills_workers_ends_in_a_stage_error(runtime: Runtime) -> None:
    with pytest.raises(StageError, match=r"stage 'die'.*lost"):
        runtime.run(flows.dying, text="poison")


def test_a_replica_killed_between_runs_is_started_again(runtime: Runtime) -> None:
    assert runtime.run(flows.answer, question="one") == "one "
    first = replica_of(runtime, "fast")
    kill(first)
    assert runtime.run(flows.answer, question="two") == "two "
    assert replica_of(runtime, "fast") != first


def test_a_replica_killed_in_a_stream_ends_it_with_an_error(runtime: Runtime) -> None:
    stream = runtime.stream(flows.endless, question="on and on")
    for event in stream:
        if isinstance(event.body, Tokens):
            break
    kill(replica_of(runtime, "slow"))
    *_, last = stream
    assert isinstance(last.body, RunFailed)
    assert last.body.error["code"] == "stage"
    assert last.body.error["details"]["attempt"] == 1


def test_a_replica_killed_in_a_run_that_nobody_reads_is_retried(runtime: Runtime) -> None:
    handle = runtime.submit(flows.patient, question="a b c d e f g h")
    killed = False
    for event in handle.events():
        if isinstance(event.body, Tokens) and not killed:
            killed = True
            kill(replica_of(runtime, "patient"))
    assert handle.result(1) == "a b c d e f g h "


def test_the_host_killed_between_runs_is_started_again(runtime: Runtime) -> None:
    runtime.run(flows.answer, question="one")
    first = host(runtime)
    kill(int(str(first["pid"])))
    assert runtime.run(flows.answer, question="two") == "two "
    assert host(runtime)["pid"] != first["pid"]


def test_the_host_killed_in_a_run_is_survived(runtime: Runtime) -> None:
    handle = runtime.submit(flows.patient, question="a b c d e f g h")
    killed = False
    for event in handle.events():
        if isinstance(event.body, Tokens) and not killed:
            killed = True
            kill(int(str(host(runtime)["pid"])))
    assert isinstance(event.body, RunCompleted)
    assert handle.result(1) == "a b c d e f g h "


def test_closing_leaves_no_process(runtime: Runtime) -> None:
    runtime.run(flows.answer, question="one")
    before = _everything(runtime)
    assert len(before) >= 7  # scheduler, two nannies, two workers, host, template, replica
    runtime.close()
    assert _alive(before) == []


@pytest.mark.parametrize("name", ["worker-0", "worker-1"])
def test_closing_ends_the_host_whichever_worker_used_it(tmp_path: Path, name: str) -> None:
    settings = Settings(home=tmp_path, host_linger_s=100)
    with Runtime(settings=settings) as runtime:
        topology = runtime._driver.cluster.topology.workers
        owned = next(each for each in map(str, range(100)) if owner_of(each, topology).name == name)
        runtime.collection(owned, embedding="fake:").add_texts(["cats purr"])
        hosts = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if "adjoin.runtime.host" in (process.info["cmdline"] or ())
            and str(tmp_path) in " ".join(process.info["cmdline"] or ())
        ]
    assert len(hosts) == 1
    assert _alive(hosts) == []


def test_a_program_killed_leaves_no_process(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path(flows.__file__).parent)!r})
        import flows
        from pathlib import Path
        from adjoin import Runtime, Settings
        runtime = Runtime(settings=Settings(home=Path({str(tmp_path)!r}), host_linger_s=0.2))
        runtime.run(flows.answer, question="one")
        status = runtime.status()
        pids = [worker["pid"] for worker in status["workers"]]
        for host in status["hosts"].values():
            pids += [host["pid"]] + [r["pid"] for r in host["replicas"]]
        print(*pids, flush=True)
        sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 4
        kill(process.pid)
    assert _alive(pids) == []


def test_runs_leave_nothing_behind(runtime: Runtime) -> None:
    """Descriptors, processes and threads of every process are the same after 100 runs as before."""
    inputs = [{"question": f"number {n}"} for n in range(50)]
    list(runtime.map(flows.answer, inputs, concurrency=8))
    before = _footprint(runtime)
    list(runtime.map(flows.answer, inputs, concurrency=8))
    for _ in range(10):
        runtime.submit(flows.endless, question="x").cancel()
    list(runtime.map(flows.answer, inputs, concurrency=8))
    after = _footprint(runtime)
    # A run that is cancelled at once may or may not have got as far as its replica.
    slow = {int(r["pid"]) for r in host(runtime)["replicas"] if r["model"] == "slow"}  # type: ignore[attr-defined]
    assert after.keys() - before.keys() <= slow
    for pid, descriptors in before.items():
        assert after[pid] <= descriptors + 8, psutil.Process(pid).cmdline()


def _everything(runtime: Runtime) -> list[int]:
    found = host(runtime)
    pids = [*workers(runtime).values(), int(str(found["pid"]))]
    pids += [int(each["pid"]) for key in ("templates", "replicas") for each in found[key]]  # type: ignore[attr-defined]
    for member in runtime._driver.cluster.pids.values():
        pids += [member, *(child.pid for child in psutil.Process(member).children(recursive=True))]
    return pids


def _footprint(runtime: Runtime) -> dict[int, int]:
    return {pid: psutil.Process(pid).num_fds() for pid in {*_everything(runtime), os.getpid()}}


def _alive(pids: list[int]) -> list[int]:
    """Those that have not ended; each is waited for, but not for ever."""
    deadline = time.monotonic() + 15
    left = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                process.wait(max(0.0, deadline - time.monotonic()))
        except psutil.NoSuchProcess:
            continue
        except psutil.TimeoutExpired:
            left.append(pid)
    return left
