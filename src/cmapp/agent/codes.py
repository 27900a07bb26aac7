"""OCF's exit codes, and the only table from what became of a run to one of them.

A cluster acts by the code: some are tried again here, some only elsewhere, some nowhere. So each cause has the code
whose remedy helps it. The invariant: a cause that is not in the table is `GENERIC`, never a success; nothing that is
not known to be an end is told as one.
"""

from __future__ import annotations

import enum

from cmapp.cluster.unreached import Unreached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Code(enum.IntEnum):
    """What an agent exits with, by the names of OCF."""

    SUCCESS = 0
    GENERIC = 1  # tried again, here or elsewhere
    ARGS = 2
    UNIMPLEMENTED = 3
    PERM = 4  # tried on other hosts only
    INSTALLED = 5  # the same
    CONFIGURED = 6  # tried nowhere
    NOT_RUNNING = 7
    DEGRADED = 190  # it runs, but somebody should have a look


# By the `cause` in cmappmgr's result; an exit with 0, a refusal and an unreachable guest have more to say.
CAUSES: dict[str, Code] = {
    "exited": Code.GENERIC,
    "signaled": Code.GENERIC,
    "unhealthy": Code.GENERIC,
    "unknown": Code.GENERIC,
    "not-started": Code.CONFIGURED,
    "guest-down": Code.GENERIC,
    "refused": Code.GENERIC,
    "detached": Code.NOT_RUNNING,
    "failed": Code.GENERIC,
}
# The protocol's words; written out, because a monitor has no time to load the protocol.
REFUSALS: dict[str, Code] = {
    "trust": Code.PERM,
    "policy": Code.PERM,
    "version": Code.CONFIGURED,
    "unknown-type": Code.CONFIGURED,
    "unsupported": Code.CONFIGURED,
    "no-run": Code.GENERIC,
    "name-taken": Code.GENERIC,
    "capacity": Code.GENERIC,
    "resources": Code.GENERIC,
    "stopped": Code.GENERIC,
}
UNREACHED: dict[Unreached, Code] = {
    Unreached.GUEST: Code.DEGRADED,
    Unreached.WAIT: Code.DEGRADED,
    Unreached.FAIL: Code.GENERIC,
}


def code_of(result: dict[str, Any], unreached: Unreached) -> Code:
    """Return what a monitor says when its manager has left `result`, cmappmgr's own, behind."""
    cause = result.get("cause")
    if cause == "unreachable":
        return UNREACHED[unreached]
    if cause == "exited" and result.get("exit_code") == 0:
        return Code.NOT_RUNNING
    if cause == "refused":
        return REFUSALS.get(str(result.get("refusal")), Code.GENERIC)
    return CAUSES.get(str(cause), Code.GENERIC)


def code_of_start(result: dict[str, Any]) -> Code:
    """Return what a start says when its manager has left `result` behind: whatever it was, it does not run."""
    code = code_of(result, Unreached.FAIL)
    return Code.GENERIC if code is Code.NOT_RUNNING else code
