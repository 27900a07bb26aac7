"""What the roster of runs wants done: each effect is carried out by the shell, in the order in which they come.

A `link` is whatever the shell names a manager's connection by. The invariant: an effect says all that is needed
to carry it out, and carrying it out never changes the roster but by an event that the shell reports later.
"""

from __future__ import annotations

from cmapp.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

    from cmapp.core.lifecycle import Action
    from cmapp.core.messages import Launch, Message


class Effect(Record):
    """Anything that is to be done."""


class Spawn(Effect):
    """Prepare the process of a new run, and report by `prepared`, or `unprepared` with the reason."""

    launch: Launch


class Begin(Effect):
    """Write the file of a run that was prepared; RECORDED or NOT_RECORDED is to be reported."""

    run_id: str
    entries: tuple[dict[str, Any], ...]


class Do(Effect):
    """Carry out an action of the run's lifecycle."""

    run_id: str
    action: Action


class Write(Effect):
    """Add an entry to the run's file; `sync` tells that it has to outlive a loss of power."""

    run_id: str
    entry: dict[str, Any]
    sync: bool = False


class Settle(Effect):
    """Nothing of the run is left but its receipt."""

    run_id: str


class Forget(Effect):
    """Remove the file of the run."""

    run_id: str


class DropOutput(Effect):
    """Nobody wants to know any more what the run has written."""

    run_id: str


class Adopt(Effect):
    """Watch a process that a server before this one has launched; LEADER_ENDED is to be reported if it is gone.

    Of a unit, `invocation` is systemd's name for the start that is meant; `over` tells that the run's end was told.
    """

    run_id: str
    launch: Launch
    pid: int
    start: int
    where: str
    invocation: str = ""
    over: bool = False


class Hold(Effect):
    """Suspend the run's checks, or resume them."""

    run_id: str
    on: bool


class Say(Effect):
    """Say a message on a link."""

    link: Hashable
    message: Message


class Dismiss(Effect):
    """Say why, and hang up; the link is lost without a further report."""

    link: Hashable
    reason: str


class Log(Effect):
    """Log a line: `level` is info, warning or error."""

    level: str
    text: str
