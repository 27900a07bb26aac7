"""What a manager asks of a server: its messages, numbered, over all the links of one run.

The invariant: no number is given twice on a link, and a launch that is repeated neither starts a run that was
there nor pushes anybody aside.
"""

from __future__ import annotations

import os

from cmapp import SOFTWARE
from cmapp.core import messages as m
from cmapp.host.task import LAUNCH_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SILENCE_MARGIN = 5.0  # seconds beyond the longest silence of ours, before the server may take us for lost
HELLO_ID = 1


class Requests:
    """Makes the requests for one run: `launch` says which, and `detach_id` is of the link's detach, or 0."""

    __slots__ = ("_hello", "_last", "detach_id", "launch")

    def __init__(self, launch: m.Launch, silence: float) -> None:
        """Prepare to speak for this process, which says something at least every `silence` seconds."""
        self.launch = launch
        self.detach_id = 0
        self._last = LAUNCH_ID
        self._hello = m.Hello(
            HELLO_ID,
            m.VERSIONS,
            SOFTWARE,
            os.uname().nodename,
            silence=silence + SILENCE_MARGIN,
            instance=os.urandom(8).hex(),
        )

    def hello(self) -> m.Hello:
        """Return what opens a link."""
        self.detach_id = 0
        return self._hello

    def adopt(self, run_id: str) -> None:
        """Speak for the run that was found instead of ours."""
        self.launch = self.launch.replace(run_id=run_id)

    def launching(self, position: Mapping[m.Stream, int], *, resume: bool) -> m.Launch:
        """Return the launch, or the launch that attaches again, with the output from `position` on."""
        return self.launch.replace(
            resume=resume,
            takeover=self.launch.takeover and not resume,
            stdout_from=position[m.Stream.STDOUT],
            stderr_from=position[m.Stream.STDERR],
        )

    def poll(self) -> m.Poll:
        """Return a poll."""
        return m.Poll(self._next_id())

    def stop(self, *, kill: bool = False) -> m.Stop:
        """Return a request to stop the run, or to kill it."""
        return m.Stop(self._next_id(), kill=kill)

    def detach(self) -> m.Detach:
        """Return a request to leave the run to a later manager."""
        self.detach_id = self._next_id()
        return m.Detach(self.detach_id)

    def acknowledge(self) -> m.Acknowledge:
        """Return that the outcome is recorded."""
        return m.Acknowledge(self._next_id(), self.launch.run_id)

    def _next_id(self) -> int:
        self._last += 1
        return self._last
