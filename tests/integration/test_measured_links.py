"""The links of a real cluster, as its agents measure them."""

from __future__ import annotations

from adjoin import Runtime
from adjoin.runtime.policies.links import advise
from adjoin.runtime.probe import SIZES


def test_links_are_measured_on_both_channels(runtime: Runtime) -> None:
    links = runtime.links()
    assert {link.channel for link in links} == {"shm", "remote"}
    for link in links:
        assert (link.protocol, link.one, link.other) == ("tcp", "worker-0", "worker-1")
        assert link.same_host
        assert tuple(sorted(link.seconds)) == SIZES
        assert link.round_trip < link.seconds[max(SIZES)]
    assert advise(links).protocol == "tcp"
