"""``adjoin doctor``: what is here, what is wrong with it, what to do."""

from __future__ import annotations

import typer

from adjoin.cli.options import Json, Set
from adjoin.cli.terminal import print_json, print_table


def doctor(as_json: Json = False, set_: Set = None) -> None:
    """Say what is here and what is wrong.

    Looks at Python, packages, processor, memory, disk, GPU, hub, models and settings.

    Exits with 1 when something makes adjoin unusable here.
    """
    from adjoin.cli.checks import FAIL, OK, all_checks

    checks = all_checks(set_)
    if as_json:
        print_json(checks)
    else:
        print_table(
            ("check", "", "found"), [(check.name, check.state, check.found) for check in checks]
        )
        wrong = [check for check in checks if check.state != OK and check.hint]
        if wrong:
            print("\nwhat to do")
        for check in wrong:
            print(f"  {check.name}: {check.hint}")
    if any(check.state == FAIL for check in checks):
        raise typer.Exit(1)
