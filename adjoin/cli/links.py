"""``adjoin doctor --links``: how fast values pass between workers, and over which protocol best."""

from __future__ import annotations

import msgspec

from adjoin.cli.options import open_runtime
from adjoin.cli.terminal import print_table
from adjoin.runtime.policies.links import Advice, Link, advise
from adjoin.settings import PROTOCOLS, Settings
from adjoin.transport.ucx import current_refusal

#: Said with every report, because what was measured says nothing about it.
NOT_RUN = (
    "what is measured goes over host memory: UCX's paths between GPUs (cuda_ipc, NVLink) and over "
    "InfiniBand were not run on this project's machines"
)
_LOCAL = (
    "one machine was measured: between machines the links are others; "
    "adjoin doctor --cluster ADDRESS measures those of a cluster"
)


class Report(msgspec.Struct, frozen=True):
    """What ``--json`` prints under ``links``."""

    links: list[Link]
    advice: Advice
    notes: list[str]


def measured(cluster: str | None, settings: Settings) -> Report:
    """Measure a running cluster, or one of this machine for each protocol that there is.

    Raises:
        NotFound: the cluster has no two workers.
    """
    notes = [NOT_RUN]
    if cluster is not None:
        with open_runtime(cluster, settings) as runtime:
            links = runtime.links()
        return Report(links, advise(links), notes)
    links = []
    for protocol in PROTOCOLS:
        if protocol == "ucx" and (refused := current_refusal()) is not None:
            notes.append(f"ucx was not measured: {refused}")
            continue
        update = {"protocol": protocol, "workers": 2}
        with open_runtime(None, settings.model_copy(update=update)) as runtime:
            links += runtime.links()
    return Report(links, advise(links), [*notes, _LOCAL])


def show(report: Report) -> None:
    sizes = sorted({size for link in report.links for size in link.seconds})
    large = sizes[1:]
    print_table(
        ("between", "protocol", "carried by", "round trip", *map(_megabytes, large), "rate"),
        [
            (
                f"{link.one} {link.other}",
                link.protocol,
                "shared memory" if link.channel == "shm" else f"{link.protocol} comm",
                _milliseconds(link.round_trip),
                *(_milliseconds(link.seconds[size]) for size in large),
                f"{link.bandwidth / 1e9:.2f} GB/s",
            )
            for link in report.links
        ],
        right=("round trip", *map(_megabytes, large), "rate"),
    )
    print(f"\nbetter here: {report.advice.protocol}; {report.advice.why}")
    for note in report.notes:
        print(f"  {note}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:g} MB"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
