"""A cluster of two hosts on this machine, each with a network, a name and a runtime directory.

    unshare --user --map-root-user --net --uts python two_hosts.py SCENARIO

A host is what its agents share: the name, and the directory in which they find each other. Here
both are namespaces of Linux joined by a pair of virtual Ethernet devices; they need no cleaning
up, since they end with their last process. The scheduler, a worker and this program are on
``near``, the other worker is on ``far``. What the scenario found is printed as JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import agreement
import flows
import msgspec

import adjoin
from adjoin import Runtime, Settings
from adjoin import functions as fn
from adjoin.dag import Graph, ModelSpec
from adjoin.types import StageCompleted, StageStarted

NEAR, FAR = "10.93.0.1", "10.93.0.2"
SCHEDULER = f"tcp://{NEAR}:8786"
#: Takes so long to load that a hop to where it is loaded takes less.
TALKER = ModelSpec(source="fake:talker", engine="fake", args={"load_s": 0.5})


def main(scenario: str) -> None:
    with tempfile.TemporaryDirectory() as folder, _told(Path(folder)), hosts(Path(folder)):
        settings = Settings(
            home=Path(folder, "home"),
            trusted_network=True,
            inline_bytes=0,
            host_linger_s=1.0,
            connect_timeout_s=60,
            worker_wait_s=60,
        )
        with Runtime(SCHEDULER, settings=settings) as runtime:
            while len(runtime.status()["workers"]) < 2:
                time.sleep(0.05)
            json.dump(SCENARIOS[scenario](runtime), sys.stdout)


def agree(runtime: Runtime) -> Any:
    """Random workflows with stages on both hosts."""
    return agreement.agree(runtime, ["near", "far"], examples=120)


def plans(runtime: Runtime) -> Any:
    """How the plan changes with where the collection is open and the model loaded."""
    runtime.collection("animals", embedding="fake:").add_texts({"cat": "cats purr"})
    workers = {each["name"]: each for each in runtime.status()["workers"]}
    holder = next(name for name, each in workers.items() if "animals" in each["collections"])
    other = next(name for name in workers if name != holder)
    found = {"hosts": {name: each["host"] for name, each in workers.items()}, "holder": holder}
    names = list(workers)
    _wait_until(runtime, holder, "models", "fake:")
    runtime.run(
        agreement.pin(talk.graph, dict.fromkeys(["generate"], other), names), question="hello"
    )
    _wait_until(runtime, other, "models", "fake:talker")
    found["apart"] = shown(runtime)
    places = {stage.id: other for stage in flows.search.graph.stages}
    runtime.run(agreement.pin(flows.search.graph, places, names), question="cats")
    _wait_until(runtime, other, "collections", "animals")
    _wait_until(runtime, other, "models", "fake:")
    return found | {"together": shown(runtime), "answer": runtime.run(answer, question="cats")}


def link(runtime: Runtime) -> Any:
    """A run on the other host while the link to it is down; nothing is said on its connections."""
    names = ["near", "far"]
    graph = next(each for each in _variants() if _where(runtime, each) == "far")
    gate = Path(runtime.settings.home.parent, "gate")
    handle = runtime.submit(graph, path=str(gate))
    for event in handle.events():
        if isinstance(event.body, StageStarted):
            break
    subprocess.run(["ip", "link", "set", "near0", "down"], check=True)
    began = time.monotonic()
    second = None
    for event in handle.events():
        if isinstance(event.body, StageStarted) and event.attempt > 1:
            second = event.body.worker
            break
    seconds = time.monotonic() - began
    gate.touch()
    result = handle.result(60)
    subprocess.run(["ip", "link", "set", "near0", "up"], check=True)
    while len(runtime.status()["workers"]) < 2:
        time.sleep(0.05)
    back = time.monotonic() - began
    done = [e.attempt > 1 for e in handle.events() if isinstance(e.body, StageCompleted)]
    pinned = agreement.pin(
        flows.chain.graph, {s.id: "far" for s in flows.chain.graph.stages}, names
    )
    again = runtime.run(pinned, text="abc")["text"]
    return {
        "seconds": seconds,
        "worker": second,
        "completed": done,
        "same": result == str(gate),
        "back": back,
        "again": again,
    }


def _variants() -> Iterator[Graph]:
    """One workflow under many versions, which are planned on one worker or the other."""
    (stage,) = flows.waiting.graph.stages
    for attempts in range(2, 40):
        policy = msgspec.structs.replace(stage.policy, attempts=attempts)
        yield dataclasses.replace(
            flows.waiting.graph, stages=(dataclasses.replace(stage, policy=policy),)
        )


def _where(runtime: Runtime, graph: Graph) -> str:
    (worker,) = runtime.explain(graph).plan.placement.values()
    return worker


def _wait_until(runtime: Runtime, worker: str, what: str, has: str) -> None:
    """News of what a worker has loaded comes after the run that needed it."""
    while not any(w["name"] == worker and has in w[what] for w in runtime.status()["workers"]):
        time.sleep(0.01)


def shown(runtime: Runtime) -> Any:
    """The plan as a table, and of each stage its worker, what carries its inputs, and why."""
    explained = runtime.explain(answer)
    stages = {
        stage["stage"]: {key: stage[key] for key in ("worker", "inputs", "why")}
        for stage in explained.to_dict()["stages"]
    }
    return {"table": str(explained), "stages": stages}


@adjoin.workflow(models={"talker": TALKER})
def talk(question: str) -> Any:
    return fn.generate(question, model="talker")


@adjoin.workflow(models={"talker": TALKER})
def answer(question: str) -> Any:
    passages = fn.retrieve(fn.embed(question, model="fake:"), collection="animals", k=1)
    prompt = fn.prompt("{{ p[0].text }}", p=passages)
    return fn.generate(prompt, model="talker")


# --- hosts ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def hosts(folder: Path) -> Iterator[None]:
    """The scheduler on ``near``, and a worker on each host."""
    with contextlib.ExitStack() as stack:
        keeper = stack.enter_context(_process(["unshare", "--net", "--uts", "cat"], folder, "far"))
        inside = ["nsenter", "--target", str(keeper.pid), "--net", "--uts"]
        while _network(keeper.pid) == _network(os.getpid()):
            time.sleep(0.01)
        _link(keeper.pid, inside)
        dask = [sys.executable, "-m", "dask"]
        common = ["--no-dashboard"]
        scheduler = [*dask, "scheduler", "--host", NEAR, "--port", "8786", *common]
        stack.enter_context(_process(scheduler, folder, "near"))
        for name, address, prefix in (("near", NEAR, []), ("far", FAR, inside)):
            worker = [*dask, "worker", SCHEDULER, "--host", address, "--name", name, *common]
            worker += ["--nthreads", "1", "--no-nanny", "--local-directory", str(folder / name)]
            stack.enter_context(_process([*prefix, *worker], folder, name))
        yield


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Say what the hosts' processes logged when something goes wrong."""
    try:
        yield
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')}")
        raise


def _network(process: int) -> str:
    return str(Path(f"/proc/{process}/ns/net").readlink())


def _link(keeper: int, inside: Sequence[str]) -> None:
    def do(*command: str) -> None:
        subprocess.run(command, check=True)

    do("hostname", "near")
    do(*inside, "hostname", "far")
    do("ip", "link", "add", "near0", "type", "veth", "peer", "name", "far0", "netns", str(keeper))
    for prefix, device, address in (((), "near0", NEAR), (inside, "far0", FAR)):
        do(*prefix, "ip", "link", "set", "lo", "up")
        do(*prefix, "ip", "address", "add", f"{address}/24", "dev", device)
        do(*prefix, "ip", "link", "set", device, "up")


@contextlib.contextmanager
def _process(command: Sequence[str], folder: Path, host: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a host, with that host's runtime directory; it ends with this one."""
    directory = folder / f"run-{host}"
    directory.mkdir(mode=0o700, exist_ok=True)
    environment: Mapping[str, str] = os.environ | {"XDG_RUNTIME_DIR": str(directory)}
    search = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    with (folder / f"{host}.log").open("ab") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            env={**environment, "PYTHONPATH": search},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


SCENARIOS = {"agree": agree, "plans": plans, "link": link}

if __name__ == "__main__":
    main(sys.argv[1])
