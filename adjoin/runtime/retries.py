"""The budgets of retries in one process, by version of a workflow.

A driver has those of stages, an agent those of the calls below one: who decides about a retry also
counts what begins.
"""

from __future__ import annotations

from adjoin.runtime.policies.retry import RetryBudget

_WHOLE = RetryBudget()


class Retries:
    """See :class:`~.policies.retry.RetryBudget`; not for several threads."""

    def __init__(self) -> None:
        self._left: dict[str, RetryBudget] = {}  # of those that are not whole

    def begin(self, version: str, count: int = 1) -> None:
        """So many stages or calls of a workflow begin, which are not retries."""
        if version in self._left:
            self._left[version] = self._left[version].earn(count)
            if self._left[version] == _WHOLE:
                del self._left[version]

    def spend(self, version: str) -> bool:
        """Whether a workflow may try something again, which is then counted."""
        left = self._left.get(version, _WHOLE).spend()
        if left is not None:
            self._left[version] = left
        return left is not None
