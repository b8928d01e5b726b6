"""What replicas consume is on record: counted at each step, whole or recognised as damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adjoin.errors import Overloaded, QuotaExceeded, from_wire
from adjoin.functions.engines.base import (
    Account,
    Allowance,
    Delta,
    EmbedRequest,
    Failed,
    Finished,
    GenerateRequest,
    LoadSpec,
    Output,
)
from adjoin.functions.engines.fake import load
from adjoin.runtime import usage_log
from adjoin.runtime.policies.batching import Limits
from adjoin.runtime.step_loop import StepLoop
from adjoin.runtime.usage_log import UsageLog
from adjoin.runtime.usage_meter import read_meter
from adjoin.runtime.usage_records import CallRecord, pack, pack_all, read
from adjoin.runtime.usage_sweep import Keeper, bound, fetch, sweep
from adjoin.types import Sampling, Scalar, Usage

ACCOUNT = Account(tenant="t", workflow="w", version="v", run="r", stage="s", attempt=1, place="s")


def record(seq: int, generated: int = 1) -> CallRecord:
    return CallRecord(seq, ACCOUNT, Usage(prompt=3, generated=generated), "ended", 5.0)


RECORDS = st.builds(
    CallRecord,
    st.integers(0, 2**40),
    st.builds(Account, stage=st.text(max_size=9), attempt=st.integers(0, 9), place=st.text()),
    st.builds(Usage, prompt=st.integers(0, 2**40), generated=st.integers(0, 2**40)),
    st.sampled_from(("ended", "aborted", "failed", "interrupted", "load")),
    st.floats(0, 1e10),
)


@given(st.lists(RECORDS, max_size=6), st.data())
def test_a_torn_tail_costs_only_itself(records: list[CallRecord], data: st.DataObject) -> None:
    whole = pack_all(records)
    cut = data.draw(st.integers(0, len(whole)))
    found = read(whole[:cut])
    assert found.records == records[: len(found.records)]
    ends = [len(pack_all(records[:n])) for n in range(len(records) + 1)]
    assert found.size == max(end for end in ends if end <= cut)
    assert found.damaged == 0


@given(st.lists(RECORDS, min_size=1, max_size=6), st.data())
def test_a_flipped_bit_costs_its_record_and_no_other(
    records: list[CallRecord], data: st.DataObject
) -> None:
    whole = bytearray(pack_all(records))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << (bit % 8)
    ends = [len(pack_all(records[: n + 1])) for n in range(len(records))]
    hit = next(n for n, end in enumerate(ends) if bit // 8 < end)
    found = read(bytes(whole))
    assert found.records == records[:hit] + records[hit + 1 :]
    if hit < len(records) - 1:
        assert found.damaged == len(pack(records[hit]))


class Replica:
    """A step loop with a log, turned by hand."""

    def __init__(self, directory: Path, **args: Scalar) -> None:
        self.engine = load(LoadSpec(model="m", engine="fake", args=args))
        self.log = UsageLog(directory, self.engine.capacity)
        self.told: list[Output] = []
        self.at_delivery: list[int] = []
        self._directory = directory
        capacity = Limits(capacity=self.engine.capacity)
        self.loop = StepLoop(self.engine, capacity, self._deliver, tally=self.log)

    def _deliver(self, outputs: list[Output], *, last: bool = False) -> None:
        self.told += outputs
        self.at_delivery.append(len(records_in(self._directory)))

    def ask(self, id: str, words: str, *allowances: Allowance, **account: object) -> None:
        request = GenerateRequest(
            id=id,
            prompt=words,
            sampling=Sampling(max_tokens=1000),
            account=msgspec.structs.replace(ACCOUNT, **account),
            allowances=allowances,
        )
        self.loop.submit(request)

    def until_ended(self, *ids: str) -> None:
        while not set(ids) <= {each.id for each in self.told if not isinstance(each, Delta)}:
            self.loop.turn()

    def end_of(self, id: str) -> Output:
        return next(each for each in self.told if each.id == id and not isinstance(each, Delta))


def records_in(directory: Path) -> list[CallRecord]:
    return [each for piece in fetch(directory, {}) for each in read(piece.data).records if each.seq]


def total(records: Iterable[CallRecord]) -> tuple[int, int, int]:
    usage = sum((each.usage for each in records), Usage())
    return usage.prompt, usage.generated, usage.embedded


def engine_total(replica: Replica) -> tuple[int, int, int]:
    stats = replica.engine.stats()
    return stats.prompt_tokens, stats.generated_tokens, stats.embedded_tokens


def test_what_the_engine_counted_is_on_record_before_it_is_told(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.ask("a", "one two three")
    replica.ask("b", "four five", stage="other", attempt=2)
    replica.loop.submit(EmbedRequest(id="c", texts=["x y"], account=ACCOUNT))
    replica.until_ended("a", "b", "c")
    found = records_in(tmp_path)
    assert replica.at_delivery[-1] == len(found) == 3
    assert total(found) == engine_total(replica) == (5, 5, 2)
    assert {(each.account.stage, each.account.attempt) for each in found} == {
        ("s", 1),
        ("other", 2),
    }
    assert {each.outcome for each in found} == {"ended"}


def test_an_aborted_call_is_on_record_with_what_it_used(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.ask("a", "one two three")
    replica.loop.turn()
    replica.loop.abort("a")
    replica.loop.turn()
    (found,) = records_in(tmp_path)
    assert (found.outcome, found.usage.prompt, found.usage.generated) == ("aborted", 3, 1)
    assert total([found]) == engine_total(replica)


def test_time_in_the_engine_is_shared_by_what_is_in_it(tmp_path: Path) -> None:
    log = UsageLog(tmp_path, 4)
    for id in "ab":
        log.begin(GenerateRequest(id=id, prompt="x", sampling=Sampling(), account=ACCOUNT))
    log.settle(4.0, [Delta(id="a", usage=Usage(prompt=1))])
    log.settle(2.0, [Finished(id="a", usage=Usage(prompt=1, generated=1))])
    log.settle(3.0, [Finished(id="b", usage=Usage(prompt=1, generated=1))])
    a, b = records_in(tmp_path)
    assert (a.usage.seconds, b.usage.seconds) == (3.0, 6.0)


def test_a_bad_request_leaves_no_trace(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.ask("bad", "")
    replica.until_ended("bad")
    (meter,) = tmp_path.glob("*.meter")
    assert not list(read_meter(meter.read_bytes()))
    assert not records_in(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from test_usage_log import Replica
replica = Replica(Path(sys.argv[1]), words=20, crash_after=7)
replica.ask("done", "one", stage="first")
replica.loop.abort("done")
replica.loop.turn()
replica.ask("a", "one two three")
while True:
    replica.loop.turn()
"""


def killed(directory: Path) -> None:
    """A replica that dies inside the step that makes the seventh token."""
    code = [sys.executable, "-c", KILLED, str(directory), str(Path(__file__).parent)]
    assert subprocess.run(code, check=False).returncode == -signal.SIGKILL


def test_what_a_killed_replica_was_doing_is_recorded_once(tmp_path: Path) -> None:
    killed(tmp_path)
    assert sweep(tmp_path) == 1
    assert sweep(tmp_path) == 0
    (found,) = [each for each in records_in(tmp_path) if each.outcome == "interrupted"]
    assert (found.account, found.usage.prompt, found.usage.generated) == (ACCOUNT, 3, 6)
    assert found.usage.seconds > 0


def test_a_sweep_that_stops_before_its_end_can_be_repeated(tmp_path: Path) -> None:
    killed(tmp_path)
    (meter,) = tmp_path.glob("*.meter")
    kept = meter.read_bytes()
    sweep(tmp_path)
    before = records_in(tmp_path)
    meter.write_bytes(kept)  # as if the sweeper had died before it removed it
    assert sweep(tmp_path) == 0
    assert records_in(tmp_path) == before


def test_the_log_of_a_living_replica_is_left_alone(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.ask("a", "one two three")
    replica.loop.turn()
    assert sweep(tmp_path) == 0
    assert list(tmp_path.glob("*.meter"))


def test_what_ended_without_a_record_is_swept_as_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the end of a call and its record."""
    replica = Replica(tmp_path)
    replica.ask("a", "one two three")
    monkeypatch.setattr(UsageLog, "_append", lambda *_: False)
    replica.until_ended("a")
    replica.log._meter._map.close()
    os.close(replica.log._meter._fd)  # which lets go of its lock, as its end would
    assert sweep(tmp_path) == 1
    (found,) = records_in(tmp_path)
    assert (found.outcome, found.usage.generated) == ("ended", 3)


def test_a_full_disk_keeps_new_calls_out_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(tmp_path)
    replica.ask("a", "one two three")
    replica.loop.turn()
    real = os.write

    def full(fd: int, data: bytes) -> int:
        return real(fd, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", full)
    replica.until_ended("a")
    assert isinstance(replica.end_of("a"), Finished)
    replica.ask("b", "four")
    replica.until_ended("b")
    refused = replica.end_of("b")
    assert isinstance(refused, Failed)
    assert isinstance(from_wire(refused.error), Overloaded)
    monkeypatch.setattr(os, "write", real)
    replica.ask("c", "five")
    replica.until_ended("c")
    found = records_in(tmp_path)
    assert [each.usage.generated for each in found] == [3, 1]
    assert total(found) == engine_total(replica)


def test_files_go_when_they_are_closed_and_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_log, "_FILE_BYTES", 1)
    replica = Replica(tmp_path)
    replica.ask("a", "one")
    replica.until_ended("a")
    replica.ask("b", "two")
    replica.until_ended("b")
    first, second = fetch(tmp_path, {})
    assert first.closed
    assert second.closed
    (left,) = fetch(tmp_path, {first.file: len(first.data)})
    assert left == second
    assert not fetch(tmp_path, {second.file: len(second.data)})
    assert len(list(tmp_path.glob("*.log"))) == 1  # which is being written


def test_beyond_the_bound_the_oldest_closed_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_log, "_FILE_BYTES", 1)
    replica = Replica(tmp_path)
    for number in range(5):
        replica.ask(f"{number}", "one", stage=f"{number}")
        replica.until_ended(f"{number}")
    size = sum(path.stat().st_size for path in tmp_path.glob("*.log"))
    assert bound(tmp_path, size) == 0
    assert bound(tmp_path, size - 1) > 0
    assert [each.account.stage for each in records_in(tmp_path)] == ["1", "2", "3", "4"]
    assert Keeper(tmp_path, 1).fetch({}) == []


RUN = Allowance("run:1", "the run's budget", 5.0)


def test_a_budget_stops_a_call_within_the_step_that_uses_it_up(tmp_path: Path) -> None:
    replica = Replica(tmp_path, words=100)
    replica.ask("a", "one two", RUN)
    replica.until_ended("a")
    assert sum(len(each.tokens) for each in replica.told if isinstance(each, Delta)) == 3
    stopped = replica.end_of("a")
    assert isinstance(stopped, Failed)
    assert isinstance(from_wire(stopped.error), QuotaExceeded)
    (found,) = records_in(tmp_path)
    assert (found.usage.prompt + found.usage.generated, found.outcome) == (5, "failed")
    assert total([found]) == engine_total(replica)


def test_an_answer_that_fits_its_budget_exactly_is_whole(tmp_path: Path) -> None:
    replica = Replica(tmp_path)
    replica.ask("a", "one two", msgspec.structs.replace(RUN, left=4.0))
    replica.until_ended("a")
    assert isinstance(replica.end_of("a"), Finished)


def test_calls_together_draw_on_one_budget(tmp_path: Path) -> None:
    replica = Replica(tmp_path, words=100)
    for id in "abc":
        replica.ask(id, "one", msgspec.structs.replace(RUN, left=12.0))
    replica.until_ended("a", "b", "c")
    used = total(records_in(tmp_path))
    assert used[0] + used[1] == 12
    replica.ask("d", "one", msgspec.structs.replace(RUN, left=0.0))
    replica.until_ended("d")
    assert total(records_in(tmp_path)) == used
