"""A daemon: what was launched ends by itself, and another process stays, which is the application.

It is named by the pid file, if there is one, or it is the oldest that is left and stays: daemons are born in several
steps. The invariant: the run goes on as long as a process may yet be found, and its end is that of the one found.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cmapp.core.outcome import Exited, Unknown
from cmapp.guest import proc

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmapp.core.outcome import Outcome
    from cmapp.guest.containment import Tree

AGAIN = 0.1  # seconds until it is looked again
GUESS_HOLDS = 5.0  # seconds after which one that was found without a pid file is no guess any more
PID_LENGTH = 32  # bytes of a pid file that are read


def is_orphan_since(pid: int, start: int, leaders: set[int]) -> bool:
    """Tell whether `pid` came to this server as an orphan, was started since `start`, and is none of the `leaders`.

    A daemon may shed all by which a tree without a cgroup is told. Orphans come to this server from its own runs only:
    one that the pid file of a run names, and that is not older than the run, is the run's.
    """
    found = proc.stat(pid)
    return found is not None and found.parent == os.getpid() and found.start >= start and pid not in leaders


class Daemon:
    """Finds the main process in `tree`: `follow` tries one, `ended` is told if there is none."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tree: Tree,
        pid_file: str,
        *,
        follow: Callable[[int], bool],
        ended: Callable[[Outcome], None],
    ) -> None:
        self._loop = loop
        self._tree = tree
        self._pid_file = pid_file
        self._follow = follow
        self._ended = ended
        self._found: float | None = None
        self._seen = 0  # the oldest at the last look
        self._nobody = False  # whether nobody was there
        self._timer: asyncio.TimerHandle | None = None

    def goes_on(self, outcome: Outcome) -> bool:
        """Take note how the process that was watched has ended; return whether the run may go on without it."""
        guess = self._found is not None and not self._pid_file and self._loop.time() - self._found < GUESS_HOLDS
        if outcome != Exited(0) or not (self._found is None or guess):
            return False
        self._look()
        return True

    def close(self) -> None:
        """Search no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        try:
            members: list[int] | None = self._tree.members()
        except OSError:
            members = None  # blind
        pid, seen = self._named() if self._pid_file else min(members or [0]), self._seen
        self._seen = pid
        if pid and (self._pid_file or pid == seen) and self._follow(pid):
            self._found = self._loop.time()
        elif members == [] and self._nobody:
            text = "what was launched has ended, and left no process behind that could be watched"
            self._ended(Unknown(text) if self._found is None else Exited(0))
        else:
            self._nobody = members == []  # at one look that may be a step of a birth, between parent and child
            self._timer = self._loop.call_later(AGAIN, self._look)

    def _named(self) -> int:
        try:
            with open(self._pid_file, "rb") as file:
                return int(file.read(PID_LENGTH).split()[0])
        except (OSError, ValueError, IndexError):
            return 0
