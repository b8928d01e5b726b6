"""Values between the workers of one machine."""

from __future__ import annotations

import pytest
from shared_flows import far_apart, hop

from adjoin import Runtime, Settings

N = 1_000_000


@pytest.mark.parametrize("shared", [False, True])
def test_a_worker_reads_what_another_one_made_where_it_lies(runtime: Runtime, shared: bool) -> None:
    result = runtime.run(hop(*far_apart(runtime)), n=N, shared=shared)
    assert result["pids"][0] != result["pids"][1]
    assert result["sum"] == 7 * N
    assert result["mapped"] == "/memfd:adjoin r--s"
    assert not result["writable"]


def test_on_one_worker_a_value_stays_where_it_is(runtime: Runtime) -> None:
    place, _ = far_apart(runtime)
    result = runtime.run(hop(place, place), n=N, shared=True)
    assert result["pids"][0] == result["pids"][1]
    assert result["mapped"] == "/memfd:adjoin rw-s"


def test_without_room_values_go_over_the_comm(settings: Settings) -> None:
    little = settings.model_copy(update={"shared_bytes": 2**19})
    with Runtime(settings=little) as runtime:
        flow = hop(*far_apart(runtime))
        for shared in (False, True):
            result = runtime.run(flow, n=N, shared=shared)
            assert result["sum"] == 7 * N
            assert result["mapped"] == ""
        assert runtime.run(flow, n=100_000)["mapped"]
