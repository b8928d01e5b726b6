"""Placement on real clusters: it changes no output, and the reasons of a plan are what decides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import agreement
import flows
import pytest

import adjoin
from adjoin import Runtime, Settings

pytestmark = pytest.mark.timeout(180)

PROGRAM = Path(__file__).parent / "two_hosts.py"
NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--uts"]
#: What a second host needs: namespaces, a pair of network devices between two of them, a name.
PROBE = (
    "hostname probe && ip link add probe0 type veth peer name probe1"
    " && setpriv --pdeathsig TERM unshare --net --uts true"
    " && nsenter --target $$ --net --uts true"
)


@pytest.mark.parametrize("workers", [1, 2])
def test_placement_on_one_host_changes_no_output(tmp_path: Path, workers: int) -> None:
    with Runtime(settings=Settings(home=tmp_path, workers=workers, inline_bytes=0)) as runtime:
        names = [worker["name"] for worker in runtime.status()["workers"]]
        seen = agreement.agree(runtime, names, examples=60)
    assert len(names) == workers
    assert 0 < seen["failed"] < seen["runs"] / 2
    assert (seen["spread"] > 10) == (seen["shm"] > 10) == (workers == 2)
    assert seen["remote"] == 0


@pytest.fixture(scope="module")
def second_host() -> None:
    try:
        probe = subprocess.run(
            [*NAMESPACES, "sh", "-c", PROBE], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        pytest.skip(f"no second host can be made here: {error}")
    if probe.returncode:
        pytest.skip(f"no second host can be made here: {probe.stderr.strip()}")


def on_two_hosts(scenario: str) -> Any:
    here = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    done = subprocess.run(
        [*NAMESPACES, sys.executable, str(PROGRAM), scenario],
        env=os.environ | {"PYTHONPATH": here},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.usefixtures("second_host")
def test_placement_on_two_hosts_changes_no_output() -> None:
    seen = on_two_hosts("agree")
    assert 0 < seen["failed"] < seen["runs"] / 2
    assert seen["remote"] > 30
    assert seen["shm"] == 0


@pytest.mark.usefixtures("second_host")
def test_a_plan_follows_the_state_that_it_names() -> None:
    found = on_two_hosts("plans")
    holder = found["holder"]
    (other,) = found["hosts"].keys() - {holder}
    assert found["hosts"] == {"near": "near", "far": "far"}
    apart, together = found["apart"]["stages"], found["together"]["stages"]
    # the index on one host, the model on the other: one value travels, before the prompt or after
    assert apart["embed"]["worker"] == apart["passages"]["worker"] == holder
    assert apart["generate"]["worker"] == other
    assert apart["passages"]["why"] == "collection 'animals' is there"
    assert apart["generate"]["why"] == "model 'fake:talker' is loaded there"
    carried = [how for each in apart.values() for how in each["inputs"].values()]
    assert sorted(carried) == ["local", "local", "remote"]
    # the index beside the model: nothing does
    assert {each["worker"] for each in together.values()} == {other}
    assert together["passages"]["why"] == "collection 'animals' is there"
    assert together["generate"]["inputs"] == {"prompt": "local"}
    assert found["answer"] == "cats purr "


@pytest.mark.usefixtures("second_host")
def test_a_dead_link_is_routed_around_in_ten_seconds() -> None:
    found = on_two_hosts("link")
    assert found["worker"] == "near"
    assert found["seconds"] < 10
    assert found["completed"] == [True]
    assert found["same"]
    assert found["again"] == "ABC has 3"


def test_a_runtime_predicts_from_what_an_earlier_one_learned(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, workers=1)
    with Runtime(settings=settings) as runtime:
        guessed = runtime.explain(flows.sleeps).plan.seconds
        for _ in range(3):
            runtime.run(flows.sleeps, seconds=0.3)
    with Runtime(settings=settings) as runtime:
        assert runtime.explain(flows.sleeps).plan.seconds > 0.2 > guessed


@adjoin.workflow
def spoken(text: str, loud: bool) -> Any:
    said = flows.shout.options(when=loud)(text)
    return {"report": flows.measure(said)}


@pytest.mark.parametrize("loud", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_what_follows_a_skipped_stage_is_skipped_wherever_it_is(
    runtime: Runtime, loud: bool, apart: bool
) -> None:
    names = [worker["name"] for worker in runtime.status()["workers"]]
    places = {"said": names[0], "measure": names[apart]}
    found = runtime.run(agreement.pin(spoken.graph, places, names), text="a", loud=loud)
    assert found["report"] == (flows.Report("A", 1) if loud else None)


@adjoin.workflow
def measured(text: str) -> Any:
    return {"report": flows.measure(text), "text": text}


@adjoin.function
def described(reports: list[Any], inner: dict[str, Any]) -> list[str]:
    return [repr(report) for report in [*reports, inner["report"]]]


@adjoin.workflow
def described_apart(texts: list[str]) -> Any:
    reports = flows.measure(adjoin.each(texts))
    inner = measured(texts[0])
    return {"said": described(reports, inner), "reports": reports, "inner": inner}


@pytest.mark.parametrize("apart", [False, True])
def test_the_users_types_are_the_same_in_fan_outs_and_nested_workflows(
    runtime: Runtime, apart: bool
) -> None:
    names = [worker["name"] for worker in runtime.status()["workers"]]
    places = {stage.id: names[0] for stage in described_apart.graph.stages}
    graph = agreement.pin(described_apart.graph, places | {"described": names[apart]}, names)
    found = runtime.run(graph, texts=["a", "bc"])
    one, two = flows.Report("a", 1), flows.Report("bc", 2)
    assert found["said"] == [repr(one), repr(two), repr(one)]
    assert found["reports"] == [one, two]
    assert found["inner"] == {"report": one, "text": "a"}
