"""A run's tree where there is no cgroup: told by descent, by sessions, and by a variable of the environment.

The server is a subreaper, so what loses its parent becomes its child and stays below it. A process belongs to the
run if it descends from one that does, lives in a session or group in which one was seen, or was started with the
run's marker. Whoever was seen once is known by number and start for good. After a restart orphans are no
longer below the server and all of /proc is looked at, but a session is then believed only while one that is known
lives in it. The invariant: a signal goes by a pidfd to a process that was judged to belong by its number and start.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING

from cmapp.core.messages import Refusal
from cmapp.errors import RunError
from cmapp.guest import pidfd, proc
from cmapp.guest.proc import Usage
from cmapp.guest.reach import KILL_PASSES, PASSES, WAITED_FOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cmapp.guest.proc import Stat

MARKER = "CMAPP_RUN_ID"
_EAGER = 10  # looks one after the other at a tree that is young, when daemons are born
_SELDOM = 8  # and every so many later
_REMEMBERED = 1024  # sessions and groups of one tree
_DOUBTS = 10  # looks in a row at which it is not believed that nobody is left, as an orphan was just being executed
_FRESH = 0.5  # seconds that a list of orphans will do for remembering


class Sessions:
    """All runs whose trees are told by sessions; `leaders` are the processes that the server itself launched."""

    kind = "session"

    def __init__(self) -> None:
        self.leaders: set[int] = set()
        self._orphans: list[int] = []
        self._listed = -_FRESH

    def tree(self, run_id: str) -> SessionTree:
        """Return the tree of a run that is about to start."""
        return SessionTree(self, run_id)

    def found(self, run_id: str, known: Iterable[Sequence[int]] = ()) -> SessionTree:
        """Return the tree of a run that another server started; `known` are the pairs of its tree's `known`."""
        return SessionTree(self, run_id, known, everywhere=True)

    def strays(self) -> list[str]:
        """Return the runs that have left something here: nobody can tell."""
        return []

    def tidy(self) -> bool:
        """Return that nothing is left to be removed."""
        return True

    def orphans(self, *, fresh: bool) -> list[int]:
        """Return the server's children that it did not launch."""
        now = time.monotonic()
        if fresh or now - self._listed > _FRESH:
            self._orphans = [pid for pid in proc.children(os.getpid()) if pid not in self.leaders]
            self._listed = now
        return self._orphans


class SessionTree:
    """The processes of one run, as far as descent, sessions and the marker tell."""

    join: int | None = None
    where = ""

    def __init__(
        self, around: Sessions, run_id: str, known: Iterable[Sequence[int]] = (), *, everywhere: bool = False
    ) -> None:
        """Know the processes `known`, start by number; look `everywhere` if orphans do not come to this server."""
        self.env = {MARKER: run_id}
        self.known: dict[int, int] = {int(pid): int(start) for pid, start in known}
        self._around = around
        self._marker = f"{MARKER}={run_id}".encode()
        self._everywhere = everywhere
        self._leader: tuple[int, int] | None = None
        self._sessions: set[int] = set()
        self._killing = False
        self._looks = 0
        self._doubts = 0

    def started(self, leader: int) -> None:
        """Take note of the process that leads the run, or of one that was found to be the run's."""
        self._around.leaders.add(leader)
        found = proc.stat(leader)
        if found is not None:
            self._leader = self._leader or (leader, found.start)
            self._note(leader, found)

    def enter(self) -> int | None:
        """Return nothing: a command beside the application is known by the marker in its environment."""
        return None

    def members(self) -> list[int]:
        """Return the processes that live; raises OSError when there is no descriptor left to look with."""
        return list(self._look())

    def owns(self, pid: int) -> bool:
        """Tell whether `pid` belongs to the run."""
        for _ in range(_REMEMBERED):
            found = proc.stat(pid)
            if found is None:
                return False
            if self._is_ours(pid, found):
                return True
            if pid in self._around.leaders or found.parent in (0, 1, os.getpid()):
                return False
            pid = found.parent
        return False

    def remember(self) -> None:
        """Look who is there, so that it is known later whatever it does; seldom once the run is no longer young."""
        self._looks += 1
        if self._looks <= _EAGER or self._looks % _SELDOM == 0:
            try:
                self._look(fresh=False, everywhere=False)
            except OSError:
                pass  # blind for now: it is done again

    def signal(self, number: int) -> None:
        """Signal every member, and those that are forked meanwhile; as far as there are descriptors for it."""
        self._reach(number, PASSES)

    def kill(self) -> None:
        """Kill every member; `survivors` kills again what it finds from here on."""
        self._killing = True
        self._signal_leaders_group(signal.SIGKILL)
        self._reach(signal.SIGKILL, KILL_PASSES)

    def survivors(self) -> list[int]:
        """Return pidfds of members that live, at most 64, the caller's to close; empty only if none lives.

        Raises OSError when there is no descriptor left to look with, or it is to be looked again.
        """
        if self._killing:
            self.kill()
        held: list[int] = []
        try:
            for pid, start in self._look().items():
                descriptor = pidfd.open_proven(pid, start)
                if descriptor is not None:
                    held.append(descriptor)
                    if len(held) == WAITED_FOR:
                        break
        except OSError:
            if not held:
                raise
        if not held and self._is_in_doubt():
            raise BlockingIOError(errno.EAGAIN, "an orphan is just being executed, and nobody can tell yet whose it is")
        return held

    def limit(self, memory: tuple[int, int] | None = None, pids: tuple[int, int] | None = None) -> None:
        """Limit the whole tree, which takes a cgroup: raises RunError."""
        if memory is not None or pids is not None:
            name = "memory" if memory is not None else "pids"
            raise RunError(Refusal.UNSUPPORTED, f"a limit of {name} needs a cgroup, and this guest's server has none")

    def usage(self) -> Usage:
        """Return what the tree uses; after a restart, as far as it is seen without looking everywhere."""
        try:
            return proc.usage_of(self._look(fresh=False, everywhere=False))
        except OSError:
            return Usage(0.0, 0, 0)

    def remove(self) -> None:
        """Forget the tree, which must be empty."""
        self._around.leaders.difference_update(self._leader[:1] if self._leader else ())
        self._around.leaders.difference_update(self.known)

    # ---- who belongs ---------------------------------------------------------------------------------------

    def _look(self, *, fresh: bool = True, everywhere: bool = True) -> dict[int, int]:
        """Return the living members, start by number, and remember them."""
        everywhere = everywhere and self._everywhere
        self._refresh()
        candidates: Iterable[int] = proc.processes() if everywhere else self._around.orphans(fresh=fresh)
        queue = list(self.known)
        seen = {os.getpid(), *queue}
        for pid in candidates:
            if pid not in seen and pid not in self._around.leaders:
                found = proc.stat(pid)
                if found is not None and found.alive and self._is_ours(pid, found):
                    self._note(pid, found)
                    seen.add(pid)
                    queue.append(pid)
        for pid in queue:
            self._walk(pid, seen, queue)
        return dict(self.known)

    def _walk(self, pid: int, seen: set[int], queue: list[int]) -> None:
        """Note the children of a member, once it is sure that they are its."""
        below = proc.children(pid)
        parent = proc.stat(pid)
        if parent is None or parent.start != self.known.get(pid):
            self.known.pop(pid, None)  # it has ended: its children are orphans
            return
        for child in below:
            found = proc.stat(child)
            if child not in seen and found is not None and found.alive and found.parent == pid:
                self._note(child, found)
                seen.add(child)
                queue.append(child)

    def _refresh(self) -> None:
        """Forget whom we knew and who has ended, and the sessions that nobody is seen in any more."""
        sessions: set[int] = set()
        for pid, start in list(self.known.items()):
            found = proc.stat(pid)
            if found is None or found.start != start or not found.alive:
                del self.known[pid]
            else:
                sessions |= {found.session, found.group}
        if self._leader is not None:
            found = proc.stat(self._leader[0])
            if found is not None and found.start == self._leader[1]:
                sessions |= {found.session, found.group}  # a zombie too: nobody else has its number
        if self._everywhere or len(self._sessions) > _REMEMBERED:
            self._sessions = sessions  # one that is empty may be somebody else's tomorrow
        else:
            self._sessions |= sessions
        self._sessions -= {0, os.getsid(0), os.getpgrp()}

    def _is_in_doubt(self) -> bool:
        """Tell whether there is an orphan that nobody can tell yet whose it is; it is waited for only so long."""
        self._doubts += 1
        return self._doubts <= _DOUBTS and any(map(proc.is_being_executed, self._around.orphans(fresh=True)))

    def _note(self, pid: int, found: Stat) -> None:
        if found.alive:
            self.known[pid] = found.start
        self._sessions |= {found.session, found.group} - {0, os.getsid(0), os.getpgrp()}

    def _is_ours(self, pid: int, found: Stat) -> bool:
        """Tell whether a process belongs by what it is, wherever it is."""
        if self.known.get(pid) == found.start:
            return True
        if found.session in self._sessions or found.group in self._sessions:
            return True
        return proc.has_variable(pid, self._marker)

    # ---- what is done --------------------------------------------------------------------------------------

    def _reach(self, number: int, passes: int) -> None:
        reached: set[tuple[int, int]] = set()
        quiet = 0
        for _ in range(passes):
            try:
                anew = self._look().items() - reached
                for pid, start in anew:
                    self._send(pid, start, number)
            except OSError:
                return  # blind: whoever waits for the end looks again
            reached |= anew
            quiet = 0 if anew else quiet + 1
            if quiet == (1 if number != signal.SIGKILL else 2):  # one that forked and ended as we looked hid a child
                return

    def _send(self, pid: int, start: int, number: int) -> None:
        descriptor = pidfd.open_proven(pid, start)
        if descriptor is not None:
            try:
                pidfd.send(descriptor, number)
            finally:
                os.close(descriptor)

    def _signal_leaders_group(self, number: int) -> None:
        """Signal the leader's group at one stroke: no fork escapes that, and it takes no descriptor."""
        if self._leader is None:
            return
        pid, start = self._leader
        try:
            found = proc.stat(pid)
        except OSError:
            return
        if found is not None and found.start == start and found.parent == os.getpid() and found.group == pid:
            try:
                os.killpg(pid, number)  # our child, which only we reap: the number is its own
            except (ProcessLookupError, PermissionError):
                pass  # nobody is left, or only what we may not signal
