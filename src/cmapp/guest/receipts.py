"""Receipts of runs that ended, kept until the manager who launched the run acknowledged its receipt.

They are kept in memory for as long as the server runs. The invariant: at most `limit` are kept, and one that
is dropped unacknowledged is told of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmapp.core.outcome import Receipt


class Receipts:
    """The receipts of this server's runs by run id, each with the manager that may acknowledge it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[str, tuple[str, Receipt]] = {}

    def __len__(self) -> int:
        """Return how many wait for their acknowledgement."""
        return len(self._kept)

    def keep(self, manager: str, receipt: Receipt) -> Receipt | None:
        """Keep `receipt` for `manager`; return the one that had to be dropped for it, if any."""
        self._kept[receipt.run_id] = (manager, receipt)
        if len(self._kept) <= self._limit:
            return None
        return self._kept.pop(next(iter(self._kept)))[1]

    def forget(self, manager: str, run_id: str) -> bool:
        """Forget the receipt of `run_id` if it is `manager`'s; return whether it was there."""
        kept = self._kept.get(run_id)
        if kept is None or kept[0] != manager:
            return False
        del self._kept[run_id]
        return True
