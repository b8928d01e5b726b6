"""What each tenant's workflows have used since the service started."""

from __future__ import annotations

from typing import Any

import msgspec

from adjoin.runtime.gateway.records import RunRecord
from adjoin.types import Usage


class Line(msgspec.Struct, frozen=True):
    """Of one workflow."""

    runs: int = 0
    failed: int = 0
    usage: Usage = Usage()


class Ledger:
    """Sums by tenant and workflow, in memory: they begin again when the service does."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], Line] = {}

    def ended(self, record: RunRecord) -> None:
        key = (record.tenant, record.deployment.name)
        old = self._lines.get(key, Line())
        failed = old.failed + (record.state != "succeeded")
        self._lines[key] = Line(old.runs + 1, failed, old.usage + record.usage)

    def of(self, tenant: str) -> list[dict[str, Any]]:
        mine = ((name, line) for (owner, name), line in self._lines.items() if owner == tenant)
        return [{"workflow": name, **msgspec.to_builtins(line)} for name, line in sorted(mine)]
