"""What runs leave behind that have ended: output that nobody has fetched yet, and what nobody will.

The invariant: the output of a run stays until its end was acknowledged, and nothing of a run that is not known stays.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from cmapp.guest.output import sweep
from cmapp.guest.preparation import open_output

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from cmapp.core.messages import Launch, Stream
    from cmapp.guest.output import Capture
    from cmapp.guest.surroundings import Surroundings

log = logging.getLogger(__name__)

TIDY_TRIES, TIDY_PAUSE = 10, 0.005  # seconds: a cgroup can be removed a moment after it is empty


class Leftovers:
    """The output of runs that have ended, by run id."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._captures: dict[str, dict[Stream, Capture]] = {}

    def keep(self, run_id: str, captures: dict[Stream, Capture]) -> None:
        """Keep the output of a run that has ended."""
        self._captures[run_id] = captures

    def find(self, run_id: str) -> dict[Stream, Capture] | None:
        """Return what is kept of that run."""
        return self._captures.get(run_id)

    def drop(self, run_id: str) -> None:
        """Remove what is kept of that run."""
        for capture in self._captures.pop(run_id, {}).values():
            capture.remove()

    def clear_up(self, known: AbstractSet[str], waiting: Iterable[Launch]) -> None:
        """After a restart: keep the output of runs whose receipts are `waiting`, end and remove what is not `known`."""
        for launch in waiting:
            self.keep(launch.run_id, open_output(self._around, launch, live=False))
        for run_id in self._around.containment.strays():
            if run_id not in known:
                log.warning("processes of run %s are left, which is over: they are killed", run_id)
                tree = self._around.containment.found(run_id)
                tree.kill()
                tree.remove()
        try:
            sweep(self._around.settings.state_dir, known)
        except OSError as error:
            log.error("the state folder cannot be cleared up: %s", error.strerror)
        self._around.spool.sweep(known | self._captures.keys())

    def tidy(self) -> None:
        """At the server's end: remove the cgroups that can be removed in a moment."""
        for _ in range(TIDY_TRIES):
            if self._around.containment.tidy():
                return
            time.sleep(TIDY_PAUSE)
