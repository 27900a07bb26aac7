"""Where the processes of runs belong: what is left of a run whose leader ended, and who reaps it.

The server is a subreaper: whatever the application forked and left becomes the server's child when its own
parent ends, so orphans can be found below the server and none is left as a zombie. A run's tree is its
process group. The invariant: nothing is signalled here; what is waited for is known by a pidfd.
"""

from __future__ import annotations

import ctypes
import os

from cmapp.guest.process import children, descendants, stat

_PR_SET_CHILD_SUBREAPER = 36
_WAITED_FOR = 64  # survivors of one group that are waited for at once


def become_subreaper() -> bool:
    """Have orphans of our children become ours; return whether the kernel does so."""
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def orphans(leaders: set[int]) -> list[int]:
    """Return the children of this process that it did not launch itself."""
    return [pid for pid in children(os.getpid()) if pid not in leaders]


def reap_orphans(leaders: set[int]) -> int:
    """Reap the orphans that have ended; return how many."""
    reaped = 0
    for pid in orphans(leaders):
        try:
            reaped += os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
        except ChildProcessError:
            pass
    return reaped


def survivors(group: int, leaders: set[int]) -> list[int]:
    """Return pidfds of what still lives in `group`, whose leader has ended; at most 64, the caller's to close.

    Raises OSError when there is no descriptor left to look with.
    """
    os.close(os.pidfd_open(os.getpid()))
    found: list[int] = []
    for pid in descendants(*orphans(leaders)):
        if len(found) < _WAITED_FOR and _lives_in(pid, group):
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            if _lives_in(pid, group):  # still, so the descriptor is not a stranger's
                found.append(pidfd)
            else:
                os.close(pidfd)
    return found


def _lives_in(pid: int, group: int) -> bool:
    found = stat(pid)
    return found is not None and found.group == group and found.state not in "ZX"
