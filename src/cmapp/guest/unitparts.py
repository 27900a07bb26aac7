"""The parts of a unit that has no process of its own, such as Debian's postgresql.service, which stop with it.

Its parts are those that systemd stops and restarts with it (`PartOf=`). The invariant: a part counts once it was seen
to run, and is over only when systemd is through with it; or if it failed, before anybody looked, since the whole began.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from cmapp.core.unitstate import UnitState, state_of
from cmapp.guest.systemd import UNIT

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cmapp.guest.systemd import Systemd

MOST = 100  # parts of one unit that are watched


class Parts:
    """The parts of one unit; `ended` is told the state of each that ran and is over."""

    def __init__(self, systemd: Systemd, ended: Callable[[UnitState], None]) -> None:
        self._systemd = systemd
        self._ended = ended
        self._parts: dict[str, _Part] = {}

    def watch(self, whole: UnitState) -> None:
        """Watch those of the unit as it is now, too; one that is an application of its own is left to it."""
        for name in whole.members:
            if name not in self._parts and len(self._parts) < MOST and not self._systemd.watches(name):
                part = self._parts[name] = _Part(name, whole.began, self._systemd, self._ended)
                self._systemd.watch(name, part)

    @property
    def names(self) -> list[str]:
        """Those that run."""
        return sorted(name for name, part in self._parts.items() if part.runs)

    def kill(self) -> None:
        """Kill all that run."""
        for name in self.names:
            self._systemd.call("KillUnit", "ssi", name, "all", signal.SIGKILL)

    def close(self) -> None:
        """Watch none any more."""
        for name, part in self._parts.items():
            self._systemd.call("UnrefUnit", "s", name)
            self._systemd.forget(name, part)
        self._parts.clear()


class _Part:
    """One of them, a watcher of its unit."""

    def __init__(self, name: str, began: int, systemd: Systemd, ended: Callable[[UnitState], None]) -> None:
        self.runs = False
        self._began = began
        self._name = name
        self._systemd = systemd
        self._ended = ended

    def back(self) -> None:
        """Look at it."""
        self._systemd.call("RefUnit", "s", self._name)  # or systemd may forget how it ended
        self._systemd.properties(self._name, self._see)

    def away(self, why: str) -> None:
        """Conclude nothing."""

    def changed(self, interface: str, properties: dict[str, Any]) -> None:
        """Look at it."""
        del properties
        if interface == UNIT:
            self._systemd.properties(self._name, self._see)

    def job_begun(self, job: int) -> None:
        """Wait for what comes of it."""

    def job_ended(self, job: int, result: str) -> None:
        """Wait for what comes of it, which is a change."""

    def _see(self, told: dict[str, Any] | None) -> None:
        if told is None:
            return
        state = state_of(told)
        if state.active == "active" and not state.without_process:
            self.runs = True
        elif state.over and (self.runs or (state.active == "failed" and state.ceased > self._began)):
            self.runs = False
            self._ended(state)
