"""``adjoin doctor``: what is here, what is wrong with it, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from adjoin.cli.options import Cluster, Json, Set, settings_of
from adjoin.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from adjoin.cli.checks import Check

Links = Annotated[
    bool,
    typer.Option(
        "--links",
        help="Also measure how fast values pass between workers: starts two, for each protocol.",
    ),
]


def doctor(
    links: Links = False, cluster: Cluster = None, as_json: Json = False, set_: Set = None
) -> None:
    """Say what is here and what is wrong.

    Looks at Python, packages, processor, memory, disk, GPU, hub, models, protocols and settings.
    With --links, or --cluster for a running one, it measures the links between workers and says
    which protocol is better.

    Exits with 1 when something makes adjoin unusable here.
    """
    from adjoin.cli.checks import FAIL, all_checks

    checks = all_checks(set_)
    failed = {check.name for check in checks if check.state == FAIL}
    report = None
    if (links or cluster) and not failed & {"packages", "settings"}:  # engines are not needed
        from adjoin.cli.links import measured

        report = measured(cluster, settings_of(set_))
    if as_json:
        print_json({"checks": checks, "links": report} if links or cluster else checks)
    else:
        _show(checks)
        if report is not None:
            from adjoin.cli.links import show

            print()
            show(report)
    if failed:
        raise typer.Exit(1)


def _show(checks: Sequence[Check]) -> None:
    from adjoin.cli.checks import OK

    print_table(
        ("check", "", "found"), [(check.name, check.state, check.found) for check in checks]
    )
    wrong = [check for check in checks if check.state != OK and check.hint]
    if wrong:
        print("\nwhat to do")
    for check in wrong:
        print(f"  {check.name}: {check.hint}")
