"""What may become of a server while applications run, and how its managers are back after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.bed import Bed, Manager

PATIENT = ("--link-timeout", "60s", "--orphan-timeout", "120s")  # for managers that are to come back
FATES = ("crash", "restart", "upgrade")


def renew(bed: Bed, fate: str) -> None:
    """Have the bed's server end in one way, and another be there after it."""
    if fate == "upgrade":
        bed.server.upgrade()
    elif fate == "restart":
        assert bed.server.stop() == 0
        bed.server.restart()
    else:
        bed.server.crash()


def until_back(manager: Manager, application: int, after: int = 0) -> None:
    """Wait until the manager is back at its run, which must be the same, as the same process."""
    manager.until_log(rf"back after .*: pid {application}, run {manager.run_id}", after)
