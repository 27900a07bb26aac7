"""How the watch over a virtual machine ended, and the only map from that to the exit code of `cmapp vm run`.

The invariant: 0 is what was asked for, or what the guest has done itself; what nobody could tell has a code of its own.
"""

from __future__ import annotations

import enum

from cmapp.core.outcome import Own
from cmapp.core.record import Record


class Cause(enum.Enum):
    """How it ended."""

    STOPPED = "stopped"
    LEFT = "left"
    SHUT_DOWN = "shut-down"
    CRASHED = "crashed"
    DESTROYED = "destroyed"
    GONE = "gone"
    ABSENT = "absent"
    ELSEWHERE = "elsewhere"
    UNTOLD = "cannot-tell"
    HUNG = "hung"
    NOT_READY = "not-ready"
    STALLED = "stalled"
    FAILED = "failed"
    NOT_STARTED = "not-started"


# The only map from an ending to the exit code of `cmapp vm run`; cmappmgr's own codes mean the like of it there.
EXIT_CODES: dict[Cause, int] = {
    Cause.STOPPED: 0,
    Cause.LEFT: 0,
    Cause.SHUT_DOWN: 0,
    Cause.CRASHED: 1,
    Cause.DESTROYED: 1,
    Cause.GONE: 1,
    Cause.ABSENT: 1,
    Cause.ELSEWHERE: Own.REFUSED,
    Cause.UNTOLD: Own.UNREACHABLE,
    Cause.HUNG: Own.UNHEALTHY,
    Cause.NOT_READY: Own.UNHEALTHY,
    Cause.STALLED: Own.UNHEALTHY,
    Cause.FAILED: Own.FAILED,
    Cause.NOT_STARTED: Own.NOT_EXECUTABLE,
}
# What libvirt's word for an end is to us; any other end is `GONE`.
CAUSES = {
    "shutdown": Cause.SHUT_DOWN,
    "saved": Cause.SHUT_DOWN,
    "destroyed": Cause.DESTROYED,
    "crashed": Cause.CRASHED,
    "failed": Cause.CRASHED,
}


class Ending(Record):
    """How it ended, and in words."""

    cause: Cause
    text: str

    @property
    def exit_code(self) -> int:
        """What `cmapp vm run` exits with."""
        return int(EXIT_CODES[self.cause])
