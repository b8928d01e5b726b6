"""A cluster over UCX, on a machine without a GPU: ``make test-ucx``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flows
import numpy as np
import psutil
import pytest
from distributed.comm import connect
from shared_flows import far_apart, mapped

import adjoin
from adjoin import Runtime, Settings
from adjoin.errors import Cancelled, TransportError
from adjoin.transport.remote import Channel
from adjoin.types import WorkerLost

pytestmark = [pytest.mark.ucx, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def ucx_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Without shared memory, so that UCX carries what one worker made and the other takes."""
    home: Path = tmp_path_factory.mktemp("home")
    return Settings(home=home, host_linger_s=1.0, inline_bytes=4096, shared_bytes=0)


@pytest.fixture(scope="module")
def ucx(ucx_settings: Settings) -> Iterator[Runtime]:
    with Runtime(settings=ucx_settings, protocol="ucx") as runtime:
        yield runtime


@adjoin.function
def ramp(context: adjoin.StageContext, n: int, collection: str) -> np.ndarray[Any, Any]:
    return np.arange(n, dtype=np.int64)


@adjoin.function
def look(
    context: adjoin.StageContext, array: np.ndarray[Any, Any], collection: str
) -> dict[str, Any]:
    """Whether all of it arrived, where it lies, and how this worker is connected to others."""
    from distributed import Worker

    (worker,) = Worker._instances
    comms = [
        comm
        for kept in (worker.rpc.available, worker.rpc.occupied)
        for of_address in kept.values()
        for comm in of_address
    ]
    return {
        "whole": np.array_equal(array, np.arange(array.size, dtype=np.int64)),
        "mapped": mapped(array),
        "comms": {comm.peer_address: type(comm).__module__ for comm in comms},
    }


@adjoin.function
def listening(context: adjoin.StageContext, collection: str) -> list[str]:
    """Where this process listens: a host, or a device when it is all hosts."""
    found = []
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            sock = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:  # no socket; or that of the listing, which is gone
            continue
        with sock:
            if sock.family == socket.AF_UNIX or not sock.getsockopt(
                socket.SOL_SOCKET, socket.SO_ACCEPTCONN
            ):
                continue
            device = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
            found.append(device.rstrip(b"\0").decode() or sock.getsockname()[0])
    return found


def test_arrays_cross_between_workers_over_ucx(ucx: Runtime) -> None:
    addresses = [worker["address"] for worker in ucx.status()["workers"]]
    assert len(addresses) == 2
    assert all(address.startswith("ucx://127.0.0.1:") for address in addresses)
    one, other = far_apart(ucx)

    @adjoin.workflow
    def there(n: int):  # type: ignore[no-untyped-def]
        return look(ramp(n, collection=one), collection=other)

    for n in (1_000, 300_000, 2**21, 2**23):
        result = ucx.run(there, n=n)
        assert result["whole"], n
        assert result["mapped"] == "", "it did not come by shared memory"
    to_others = {at: of for at, of in result["comms"].items() if at in addresses}
    assert set(to_others.values()) == {"adjoin.transport.ucx_comm"}
    assert all(address.startswith("ucx://") for address in result["comms"])


def values() -> dict[str, Any]:
    random = np.random.default_rng(7).random((400, 300))
    return {
        "floats": random.astype(np.float32),
        "strided": random[::2, ::-3],
        "fortran": np.asfortranarray(random),
        "empty": np.empty((0, 3), np.float32),
        "texts": np.array(["a", "bcd"] * 9000),
        "many": [np.full(n, n, np.float32) for n in range(500)],
        "bytes": bytes(range(256)) * 1000,
        "text": "ein Text, ä 文" * 10_000,
        "nested": {"a": [(1, 2.5, None)], "b": np.arange(5000)},
    }


@adjoin.function
def make_values(context: adjoin.StageContext, collection: str) -> dict[str, Any]:
    return values()


@adjoin.function
def differing(context: adjoin.StageContext, found: dict[str, Any], collection: str) -> list[str]:
    """Names of what did not arrive as it was."""
    wrong = []
    for name, expected in values().items():
        try:
            np.testing.assert_equal(found[name], expected)
        except AssertionError:
            wrong.append(name)
    return wrong


def test_values_of_all_kinds_arrive_as_they_were(ucx: Runtime) -> None:
    one, other = far_apart(ucx)

    @adjoin.workflow
    def there():  # type: ignore[no-untyped-def]
        return differing(make_values(collection=one), collection=other)

    assert ucx.run(there) == []


def test_links_are_measured(ucx: Runtime) -> None:
    (link,) = ucx.links()
    assert (link.protocol, link.channel) == ("ucx", "remote")
    assert link.round_trip < link.seconds[max(link.seconds)]


def test_runs_of_many_stages(ucx: Runtime) -> None:
    assert ucx.run(flows.chain, text="abc")["text"] == "ABC has 3"
    many = list(ucx.map(flows.chain, [{"text": "x" * n} for n in range(40)]))
    assert [result["text"] for result in many] == [f"{'X' * n} has {n}" for n in range(40)]


def test_models_and_tokens(ucx: Runtime) -> None:
    assert ucx.run(flows.answer, question="one") == "one "


def test_a_cancelled_run_lets_go(ucx: Runtime) -> None:
    handle = ucx.submit(flows.sleeps, seconds=100)
    next(handle.events())
    handle.cancel()
    with pytest.raises(Cancelled):
        handle.result(10)
    assert ucx.run(flows.chain, text="abc")["text"] == "ABC has 3"


def test_a_worker_killed_in_a_stage_costs_an_attempt(ucx: Runtime, tmp_path: Path) -> None:
    handle = ucx.submit(flows.dying_once, mark=str(tmp_path / "mark"))
    assert handle.result(60) == "survived"
    lost = [event.body for event in handle.events() if isinstance(event.body, WorkerLost)]
    assert lost[0].stages == ("die_once",)


def test_a_worker_killed_between_runs_breaks_nothing(ucx: Runtime) -> None:
    for worker in ucx.status()["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
        assert ucx.run(flows.chain, text="abc")["text"] == "ABC has 3"


def test_a_second_runtime_of_the_process_joins(ucx: Runtime, ucx_settings: Settings) -> None:
    with Runtime(ucx.status()["scheduler"], settings=ucx_settings) as joined:
        assert joined.run(flows.chain, text="abc")["text"] == "ABC has 3"
    assert ucx.run(flows.chain, text="abc")["text"] == "ABC has 3", "it still runs"


def test_runtimes_come_and_go(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, host_linger_s=0.2, workers=1)
    for _ in range(3):
        with Runtime(settings=settings, protocol="ucx") as runtime:
            assert runtime.run(flows.chain, text="abc")["text"] == "ABC has 3"


def test_a_reader_that_is_cancelled_is_told_so(ucx: Runtime) -> None:
    """Otherwise UCX says that the connection is lost, and a timeout is none."""

    address = ucx.status()["workers"][0]["address"]

    async def impatient() -> None:
        comm = await connect(address)
        try:
            async with asyncio.timeout(0.1):
                await comm.read()
        finally:
            comm.abort()
        assert comm.closed()

    with pytest.raises(TimeoutError):
        ucx._loop.call(impatient())


def test_a_worker_that_is_not_there_is_a_lost_connection(ucx: Runtime) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"ucx://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(TransportError, match="cannot connect"):
            ucx._loop.call(Channel.open(ucx._driver.cluster._pool, address, "adjoin_call", b""))


def test_nobody_else_reaches_a_worker(ucx: Runtime) -> None:
    place, _ = far_apart(ucx)

    @adjoin.workflow
    def flow():  # type: ignore[no-untyped-def]
        return listening(collection=place)

    found = set(ucx.run(flow))
    assert "lo" in found, "UCX listens"
    assert found <= {"lo", "127.0.0.1"}


def test_waiting_costs_no_processor_time(ucx: Runtime) -> None:
    """A comm that polls takes all of a core in every process."""
    processes = [
        psutil.Process(pid)
        for pid in [
            *ucx._driver.cluster.pids.values(),
            *(w["pid"] for w in ucx.status()["workers"]),
        ]
    ]
    before = [sum(process.cpu_times()[:2]) for process in processes]
    psutil.cpu_percent(interval=2.0)
    spent = [
        sum(process.cpu_times()[:2]) - was for process, was in zip(processes, before, strict=True)
    ]
    assert max(spent) < 0.3, spent


PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import flows
from pathlib import Path
from adjoin import Runtime, Settings
settings = Settings(home=Path({home!r}), host_linger_s=0.2)
runtime = Runtime(settings=settings, protocol="ucx")
print(runtime.run(flows.chain, text="abc")["text"])
workers = [worker["pid"] for worker in runtime.status()["workers"]]
print(*workers, *runtime._driver.cluster.pids.values(), flush=True)
"""


def program(home: Path, *more: str) -> list[str]:
    text = PROGRAM.format(folder=str(Path(flows.__file__).parent), home=str(home))
    return [sys.executable, "-c", "\n".join([text, *more])]


def gone(pids: str) -> bool:
    """Whether all of these processes end."""
    alive = [psutil.Process(int(pid)) for pid in pids.split() if psutil.pid_exists(int(pid))]
    return not psutil.wait_procs(alive, timeout=30)[1]


def test_a_program_prints_what_it_prints(tmp_path: Path) -> None:
    """UCX writes its warnings to standard output unless it is told otherwise."""
    done = subprocess.run(
        program(tmp_path, "runtime.close()"), capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer, pids = done.stdout.splitlines()
    assert answer == "ABC has 3"
    assert gone(pids)


def test_a_program_that_forgets_to_close_ends(tmp_path: Path) -> None:
    """A thread of UCX is no daemon."""
    done = subprocess.run(program(tmp_path), capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert gone(done.stdout.splitlines()[1])


def test_a_program_killed_leaves_no_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        program(tmp_path, "sys.stdin.read()"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ABC has 3\n"
        pids = process.stdout.readline()
        process.kill()
    assert len(pids.split()) == 5
    assert gone(pids)
