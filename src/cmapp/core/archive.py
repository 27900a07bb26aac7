"""The receipts of a guest's runs: each is kept until its manager acknowledged it, and for a while after that.

The while lets a manager that comes back with the run id of a run that ended learn how, instead of running it
again. The invariant: at most `limit` receipts are kept, those acknowledged first give way to new ones, and one
that has to go unacknowledged is told of.
"""

from __future__ import annotations

from cmapp.core.outcome import Reason, Receipt, Unknown
from cmapp.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container


DAMAGED = "nothing is known of it any more, as its record is damaged or was lost"
EXPIRED_AT_ONCE = 100  # receipts that are dropped at one look: they are removed from the disk one by one


class Kept(Record):
    """A receipt, the manager that may acknowledge it, its process; `acknowledged` of one that had to go."""

    manager: str
    receipt: Receipt
    pid: int
    acknowledged: float | None = None


class Archive:
    """Receipts by run id, in the order in which they came or were acknowledged."""

    def __init__(self, limit: int, retention: float) -> None:
        """Keep those that were acknowledged for `retention` seconds of the wall's clock."""
        self.limit = limit
        self.retention = retention
        self.lost: set[str] = set()  # run ids of runs of which nothing is known any more
        self._kept: dict[str, Kept] = {}
        self._acknowledged: dict[str, float] = {}

    def __len__(self) -> int:
        """Return how many wait for their acknowledgement."""
        return len(self._kept) - len(self._acknowledged)

    def find(self, run_id: str, name: str = "") -> Kept | None:
        """Return what is kept of that run, also that nothing is known of it but that it was one of `name`."""
        if run_id in self.lost and name:
            receipt = Receipt(name, run_id, Unknown(DAMAGED), Reason.ITSELF, started=0.0, ended=0.0, lasted=0.0)
            return Kept("", receipt, 0)
        return self._kept.get(run_id)

    def keep(self, manager: str, receipt: Receipt, pid: int, acknowledged: float | None = None) -> Kept | None:
        """Keep a receipt, once acknowledged or not; return the one that had to go for it, if any."""
        self._kept[receipt.run_id] = Kept(manager, receipt, pid)
        if acknowledged is not None:
            self._acknowledged[receipt.run_id] = acknowledged
        if len(self._kept) <= self.limit:
            return None
        oldest = next(iter(self._acknowledged), None) or next(iter(self._kept))
        return self._kept.pop(oldest).replace(acknowledged=self._acknowledged.pop(oldest, None))

    def give_up(self, run_id: str) -> None:
        """Take note that a manager was told that nothing is known of that run: it is not to be started after that."""
        if run_id not in self._kept and len(self.lost) < self.limit:
            self.lost.add(run_id)

    def give(self, run_id: str, manager: str) -> None:
        """Let the manager that it was told to acknowledge it."""
        if run_id in self._kept:
            self._kept[run_id] = self._kept[run_id].replace(manager=manager)

    def acknowledge(self, manager: str, run_id: str, wall: float) -> bool:
        """Take note of an acknowledgement; return whether it was `manager`'s to give, and new."""
        kept = self._kept.get(run_id)
        if kept is None or kept.manager != manager or run_id in self._acknowledged:
            return False
        self._acknowledged[run_id] = wall
        return True

    def acknowledged(self, run_id: str) -> bool:
        """Tell whether the receipt of that run was acknowledged."""
        return run_id in self._acknowledged

    def waits(self, run_id: str) -> bool:
        """Tell whether the receipt of that run is here, and waits to be acknowledged."""
        return run_id in self._kept and run_id not in self._acknowledged

    def expire(self, wall: float, needed: Container[str] = ()) -> list[str]:
        """Drop receipts that were acknowledged long ago, but none `needed`; return the run ids of some of them."""
        expired: list[str] = []
        for run_id, since in self._acknowledged.items():
            if wall < since:  # the clock was set back: it counts from here
                self._acknowledged[run_id] = wall
            elif len(expired) >= EXPIRED_AT_ONCE or wall - since < self.retention:
                break
            elif run_id not in needed:
                expired.append(run_id)
        for run_id in expired:
            del self._acknowledged[run_id], self._kept[run_id]
        return expired
