"""Runs on a real cluster: results, errors, cancellation, collections."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import flows
import numpy as np
import pytest

from adjoin import (
    Conflict,
    InputError,
    NotFound,
    Passage,
    PlanError,
    Runtime,
    Settings,
    StageError,
    TransportError,
)
from adjoin.types import (
    ModelReady,
    Progress,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPlanned,
    StageCompleted,
    StageFailed,
    StageStarted,
    StageWarning,
    Tokens,
)


def test_values_of_user_types_come_back_as_they_were(runtime: Runtime) -> None:
    result = runtime.run(flows.chain, text="abc")
    assert result == {"text": "ABC has 3", "report": flows.Report("ABC", 3)}


def test_a_value_too_large_for_a_message_is_pulled(runtime: Runtime, settings: Settings) -> None:
    n = settings.inline_bytes
    result = runtime.run(flows.sums, n=n)
    assert result["sum"] == n
    np.testing.assert_array_equal(result["values"], np.ones(n, dtype=np.float32))


def test_a_stage_cannot_change_what_others_see(runtime: Runtime) -> None:
    with pytest.raises(StageError, match="read-only"):
        runtime.run(flows.scribbles, n=3)


def test_nor_what_lies_in_a_container(runtime: Runtime) -> None:
    with pytest.raises(StageError, match="read-only"):
        runtime.run(flows.overwrites, n=3)


def test_a_function_that_raises_names_stage_and_cause(runtime: Runtime) -> None:
    with pytest.raises(StageError, match="stage 'fail': ValueError: cannot take this") as caught:
        runtime.run(flows.failing, text="this")
    assert caught.value.details["stage"] == "fail"
    assert caught.value.details["attempt"] == 1


def test_a_stage_is_tried_as_often_as_it_says(runtime: Runtime, tmp_path: Path) -> None:
    handle = runtime.submit(flows.flaky, marks=str(tmp_path))
    assert handle.result(30) == 3
    failed = [
        (event.attempt, event.body.retry)
        for event in handle.events()
        if isinstance(event.body, StageFailed)
    ]
    assert failed == [(1, True), (2, True)]


def test_a_stage_over_its_timeout_is_cut_off(runtime: Runtime) -> None:
    with pytest.raises(StageError, match=r"longer than 0\.2 s"):
        runtime.run(flows.sluggish, text="x")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "needs the input 'text'"),
        ({"text": 3}, "text"),
        ({"txt": "a"}, "no input 'txt'"),
        ({"text": "x" * 2_000_000}, "bytes"),
    ],
)
def test_bad_inputs_are_refused_before_anything_runs(
    runtime: Runtime, inputs: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        runtime.run(flows.chain, **inputs)


def test_events_tell_the_whole_story_in_order(runtime: Runtime) -> None:
    events = list(runtime.stream(flows.answer, question="one two three"))
    assert [event.seq for event in events] == list(range(len(events)))
    assert all(a.at <= b.at for a, b in itertools.pairwise(events))
    kinds = [type(event.body) for event in events if event.stage == "generate"]
    assert kinds[0] is StageStarted
    assert kinds[-1] is StageCompleted
    text = "".join(
        token.text for e in events if isinstance(e.body, Tokens) for token in e.body.tokens
    )
    assert text == "one two three "
    last = events[-1].body
    assert isinstance(last, RunCompleted)
    assert last.outputs == {"output": "one two three "}
    assert (last.usage.prompt, last.usage.generated) == (3, 3)


def test_a_failed_stream_ends_with_the_error(runtime: Runtime) -> None:
    *_, last = runtime.stream(flows.failing, text="x")
    assert isinstance(last.body, RunFailed)
    assert last.body.error["code"] == "stage"


def test_closing_a_stream_aborts_the_generation(runtime: Runtime) -> None:
    stream = runtime.stream(flows.endless, question="on and on")
    for event in stream:
        if isinstance(event.body, Tokens):
            break
    stream.close()
    assert _running(runtime, "slow") == 0


def test_cancelling_a_run_frees_what_it_held(runtime: Runtime) -> None:
    handle = runtime.submit(flows.endless, question="on and on")
    for event in handle.events():
        if isinstance(event.body, Tokens):
            break
    handle.cancel()
    assert _running(runtime, "slow") == 0
    assert isinstance(list(handle.events())[-1].body, RunCancelled)


def test_a_crash_of_the_engine_is_retried_and_then_reported(runtime: Runtime) -> None:
    handle = runtime.submit(flows.crashing, question="one two three four")
    with pytest.raises(StageError, match="after 3 attempts"):
        handle.result(30)


def test_a_crash_after_tokens_were_seen_is_not_retried(runtime: Runtime) -> None:
    events = list(runtime.stream(flows.crashing, question="one two three four"))
    assert isinstance(events[-1].body, RunFailed)
    assert {event.attempt for event in events if event.stage} == {1}


def test_map_keeps_the_order_and_yields_errors_in_place(runtime: Runtime) -> None:
    inputs: list[dict[str, Any]] = [{"text": "a"}, {"wrong": 1}, {"text": "b"}]
    first, second, third = runtime.map(flows.chain, inputs, concurrency=2)
    assert first["text"] == "A has 1"
    assert isinstance(second, InputError)
    assert third["text"] == "B has 1"


def test_many_runs_share_a_replica(runtime: Runtime) -> None:
    questions = [{"question": f"number {n}"} for n in range(40)]
    answers = list(runtime.map(flows.answer, questions, concurrency=20))
    assert answers == [f"number {n} " for n in range(40)]
    replicas = [r for r in _replicas(runtime) if r["model"] == "fast"]
    assert len(replicas) == 1


async def test_asynchronous_forms_give_the_same(runtime: Runtime) -> None:
    assert (await runtime.arun(flows.chain, text="abc"))["text"] == "ABC has 3"
    events = [event async for event in runtime.astream(flows.answer, question="one")]
    assert isinstance(events[-1].body, RunCompleted)
    handle = await runtime.asubmit(flows.answer, question="two")
    assert await handle.aresult(30) == "two "
    results = [r async for r in runtime.amap(flows.chain, [{"text": "x"}])]
    assert results[0]["text"] == "X has 1"


async def test_a_cancelled_caller_cancels_its_run(runtime: Runtime) -> None:
    task = asyncio.ensure_future(runtime.arun(flows.endless, question="x"))
    while _running(runtime, "slow") == 0:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while _running(runtime, "slow"):
        await asyncio.sleep(0)


def test_collections_hold_what_was_added(runtime: Runtime) -> None:
    animals = runtime.collection("animals", embedding="fake:")
    animals.add_texts({"cat": "cats purr", "dog": "dogs bark", "cow": "cows moo"})
    assert animals.info().passages == 3
    best = animals.search("dogs bark", k=1)
    assert [(p.source, p.text) for p in best] == [("dog", "dogs bark")]
    found = runtime.run(flows.search, question="cats purr", k=10)
    assert len(found) == 3
    assert isinstance(found[0], Passage)
    assert found[0].text == "cats purr"
    assert "animals" in [info.name for info in runtime.collections()]
    where = runtime.explain(flows.search).plan
    assert where.reasons["retrieve"] == "collection 'animals' is there"
    assert len(where.segments) == 1


def test_collections_on_different_workers_meet_in_one_run(runtime: Runtime) -> None:
    for name in ("animals", "plants"):
        runtime.collection(name, embedding="fake:").add_texts({name: f"some {name} here"})
    result = runtime.run(flows.two_collections, question="some plants here")
    assert result["right"][0].source == "plants"


@pytest.mark.parametrize("k", [0, -1, 1001])
def test_k_out_of_bounds_is_refused(runtime: Runtime, k: int) -> None:
    runtime.collection("animals", embedding="fake:").add_texts({"cat": "cats purr"})
    with pytest.raises((InputError, StageError), match="k"):
        runtime.run(flows.search, question="x", k=k)


def test_a_folder_is_synchronised(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Cats\n\nCats purr loudly.")
    (tmp_path / "b.txt").write_text("Dogs bark.")
    (tmp_path / "c.pdf").write_bytes(b"%PDF-1.4 nothing of the kind")
    seen: list[Progress] = []
    folder = runtime.collection("folder", embedding="fake:")
    report = folder.add_files(tmp_path, progress=seen.append)
    assert (report.added, report.changed, report.removed, report.unchanged) == (2, 0, 0, 0)
    assert [Path(source).name for source, _ in report.skipped] == ["c.pdf"]
    assert seen[-1].done == seen[-1].total == 3
    (tmp_path / "a.md").write_text("# Cats\n\nCats sleep.")
    (tmp_path / "b.txt").unlink()
    (tmp_path / "c.pdf").unlink()
    (tmp_path / "d.txt").write_text("Cows moo.")
    report = folder.add_files(tmp_path)
    assert (report.added, report.changed, report.removed, report.unchanged) == (1, 1, 1, 0)
    report = folder.add_files(tmp_path)
    assert (report.added, report.passages, report.unchanged) == (0, 0, 2)
    texts = {passage.text for passage in folder.search("anything", k=100)}
    assert any("sleep" in text for text in texts)
    assert not any("bark" in text or "purr" in text for text in texts)


def test_a_collection_refuses_another_embedding_model(runtime: Runtime) -> None:
    runtime.collection("fixed", embedding="fake:").add_texts(["text"])
    with pytest.raises(Conflict, match=r"fake:.*not of 'minilm'"):
        runtime.collection("fixed", embedding="minilm").add_texts(["text"])


def test_what_is_not_there_is_not_found(runtime: Runtime) -> None:
    nothing = runtime.collection("nothing")
    with pytest.raises(NotFound, match="nothing"):
        nothing.search("text")
    with pytest.raises(NotFound):
        nothing.delete()


def test_a_deleted_collection_is_gone(runtime: Runtime) -> None:
    collection = runtime.collection("short", embedding="fake:")
    collection.add_texts(["text"])
    collection.delete()
    with pytest.raises(NotFound):
        collection.info()


def test_joining_uses_the_same_cluster(runtime: Runtime, settings: Settings) -> None:
    address = runtime.status()["scheduler"]
    with Runtime(address, settings=settings) as joined:
        assert joined.run(flows.chain, text="abc")["text"] == "ABC has 3"
    assert runtime.run(flows.chain, text="abc")["text"] == "ABC has 3", "it still runs"


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "tcp://"])
def test_an_open_network_is_not_joined(settings: Settings, address: str) -> None:
    with pytest.raises(InputError, match=r"TLS|address"):
        Runtime(address, settings=settings)


def test_no_scheduler_is_an_error_of_one_line(settings: Settings) -> None:
    impatient = settings.model_copy(update={"connect_timeout_s": 0.5})
    with pytest.raises(TransportError, match="no scheduler answers"):
        Runtime("tcp://127.0.0.1:9", settings=impatient)


def test_a_replica_that_starts_is_an_event(settings: Settings, tmp_path: Path) -> None:
    own = settings.model_copy(update={"home": tmp_path, "workers": 1})
    with Runtime(settings=own) as runtime:
        events = list(runtime.stream(flows.answer, question="hello"))
    ready = [event for event in events if isinstance(event.body, ModelReady)]
    assert len(ready) == 1
    completed = events[-1].body
    assert isinstance(completed, RunCompleted)
    assert completed.usage.cold_start_seconds > 0


def _replicas(runtime: Runtime) -> list[dict[str, object]]:
    return [r for host in runtime.status()["hosts"].values() for r in host["replicas"]]


def _running(runtime: Runtime, model: str) -> int:
    return sum(int(str(r["running"])) for r in _replicas(runtime) if r["model"] == model)


def test_costs_are_learned_and_the_next_run_is_predicted(runtime: Runtime) -> None:
    for _ in range(12):
        runtime.run(flows.sleeps, seconds=0.05)
    planned = [e.body for e in runtime.stream(flows.sleeps, seconds=0.05)]
    (found,) = [body for body in planned if isinstance(body, RunPlanned)]
    assert found.predicted["nap"] == pytest.approx(0.05, rel=0.4)
    assert found.seconds == pytest.approx(0.05, rel=0.4)
    explained = runtime.explain(flows.sleeps)
    assert explained.plan.terms["nap"].compute == pytest.approx(0.05, rel=0.4)
    # usage has the time of the stage, not its model calls on top
    (done,) = [body for body in planned if isinstance(body, StageCompleted)]
    assert done.usage.seconds == pytest.approx(0.05, rel=0.5)


def test_the_planner_knows_what_workers_have(runtime: Runtime) -> None:
    runtime.collection("animals", embedding="fake:").add_texts({"cat": "cats purr"})
    runtime.run(flows.search, question="cats purr")
    workers = runtime.explain(flows.search).topology.workers
    (holder,) = [worker for worker in workers if "animals" in worker.collections]
    assert holder.sizes["animals"] > 0
    assert "fake:" in holder.models
    assert all(worker.threads > 0 for worker in workers)


def test_a_demand_that_no_worker_meets_ends_the_run(runtime: Runtime) -> None:
    with pytest.raises(PlanError, match=r"stage 'nap': no worker is left by resources licence 1"):
        runtime.run(flows.licensed, seconds=0.01)


def test_a_stage_that_blocks_the_loop_is_named_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    quick = settings.model_copy(update={"loop_block_warning_s": 0.1, "workers": 1})
    with Runtime(settings=quick) as runtime:
        events = list(runtime.stream(flows.freezing, seconds=1.0))
        (warned,) = [event for event in events if isinstance(event.body, StageWarning)]
        assert warned.stage.startswith("freeze[")
        assert isinstance(warned.body, StageWarning)
        where = warned.body.where
        assert ("flows.py:" in where or "module flows:" in where) and where.endswith("in freeze")
        assert isinstance(events[-1].body, RunCompleted)
        assert "blocks" not in caplog.text  # the reader of the events knows
        runtime.run(flows.freezing, seconds=1.0)
        assert caplog.text.count("stage 'freeze[") == caplog.text.count("blocks its worker") == 1
