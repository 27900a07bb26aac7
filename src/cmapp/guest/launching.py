"""What carries a run out: processes of our own, or a unit of systemd's.

The invariant: which of the two it is follows from the launch alone, and both are asked and told the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmapp.core.unitlife import SYSTEMD
from cmapp.guest.adoption import was_executed
from cmapp.guest.execution import Execution
from cmapp.guest.unit import UnitExecution

if TYPE_CHECKING:
    from cmapp.core.effects import Adopt
    from cmapp.core.messages import Launch
    from cmapp.guest.surroundings import Surroundings

AnyExecution = Execution | UnitExecution


def prepare(around: Surroundings, launch: Launch) -> AnyExecution:
    """Prepare a new run, of which nothing is executed yet; raises RunError when it cannot be."""
    return UnitExecution.prepare(around, launch) if launch.unit else Execution.prepare(around, launch)


def adopt(around: Surroundings, effect: Adopt) -> AnyExecution:
    """Take over what a server before this one has launched."""
    return UnitExecution.adopt(around, effect) if effect.launch.unit else Execution.adopt(around, effect)


def identity_of(run: AnyExecution) -> tuple[int, int]:
    """Return the number and the start of the process that was prepared; systemd's until a unit's own is known."""
    if isinstance(run, UnitExecution):
        return SYSTEMD, 0
    return (0, 0) if run.process is None else (run.process.pid, run.process.start)


def is_found(run: AnyExecution) -> bool:
    """Tell whether anything is left of a run that was adopted; of a unit only systemd can tell, later."""
    return isinstance(run, UnitExecution) or run.process is not None


def is_executed(run: AnyExecution) -> bool:
    """Tell whether it is the application, and no longer what prepares that; systemd prepares nothing of ours."""
    return isinstance(run, UnitExecution) or (run.process is not None and was_executed(run.process.main.pid))
