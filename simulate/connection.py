"""A manager's link at the server's end: its session, and what it is told when it asks.

The invariant: a manager hears only of the run that it answers for, and not before it was told which one that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmapp.core import messages as m
from cmapp.core.lifecycle import State
from cmapp.core.session import Role, Session
from cmapp.core.session import State as Said

if TYPE_CHECKING:
    from wires import Wire

    from cmapp.core.charge import Charge

SILENCE = 10.0  # seconds that a connection may take to say hello
PHASES = {
    State.STARTING: m.Phase.STARTING, State.READYING: m.Phase.READYING, State.RUNNING: m.Phase.RUNNING,
    State.STOPPING: m.Phase.STOPPING, State.KILLING: m.Phase.STOPPING, State.CLEARING: m.Phase.ENDED,
    State.ENDED: m.Phase.ENDED,
}  # fmt: skip


class Connection:
    """A manager's link, at the server's end."""

    __slots__ = ("heard", "launch", "manager", "number", "session", "silence", "wire")

    def __init__(self, wire: Wire, manager: str, number: int, now: float) -> None:
        self.wire = wire
        self.manager = manager
        self.number = number
        self.session = Session(Role.SERVER)
        self.silence: float | None = SILENCE
        self.heard = now
        self.launch: m.Launch | None = None

    def report(self, poll: m.Poll, charge: Charge | None) -> m.Message:
        """Answer a poll, of the run `charge` that its manager answers for."""
        launch = self.launch
        waits = self.session.state is Said.LAUNCHING
        other = charge is not None and launch is not None and charge.run_id != launch.run_id
        if charge is not None and not (waits and other):
            phase, held = PHASES[charge.run.state], charge.run.held
            return m.Report(poll.id, m.RunReport(charge.launch.name, charge.run_id, phase, held=held))
        if launch is None:
            return m.Refused(m.Refusal.NO_RUN, "there is no run on this link", id=poll.id)
        phase = m.Phase.WAITING if waits else m.Phase.ENDED
        return m.Report(poll.id, m.RunReport(launch.name, launch.run_id, phase))
