"""What runs leave behind that have ended: output that nobody has fetched yet, and what nobody will.

The invariant: the output of a run stays until its end was acknowledged, and nothing of a run that is not known stays.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from cmapp.guest.output import sweep
from cmapp.guest.preparation import open_output

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from cmapp.core.messages import Launch, Stream
    from cmapp.guest.containment import Tree
    from cmapp.guest.output import Capture
    from cmapp.guest.surroundings import Surroundings

log = logging.getLogger(__name__)

END_TRIES, END_PAUSE = 200, 0.01  # seconds that what is killed at the start is waited for
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

    def clear_up(self, here: AbstractSet[str], spared: AbstractSet[str], waiting: Iterable[Launch]) -> None:
        """After a restart, end and remove what is left of runs that are not `here`, nor to be `spared`.

        The output of those whose receipts are `waiting` is kept.
        """
        known = here | spared
        for launch in waiting:
            if launch.run_id not in here:
                self.keep(launch.run_id, open_output(self._around, launch, live=False))
        for run_id in self._around.containment.strays():
            if run_id not in known:
                log.warning("processes of run %s are left, which is over: they are killed", run_id)
                tree = self._around.containment.found(run_id)
                tree.kill()
                _await_end(tree)
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


def _await_end(tree: Tree) -> None:
    """Wait until nobody is left, bounded: nobody is served yet, and their names are not known."""
    for _ in range(END_TRIES):
        try:
            left = tree.survivors()
        except OSError:
            left = None
        for pidfd in left or ():
            os.close(pidfd)
        if left == []:
            return
        time.sleep(END_PAUSE)
    log.error("what is left of a run that is over does not end, and is waited for no longer")
