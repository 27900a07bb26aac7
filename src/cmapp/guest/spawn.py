"""Starting the trampoline: the one place where the server makes a process.

`posix_spawn` keeps the loop free however large the server is, and the trampoline does the rest in the new process.
The invariant: what is started is returned with a descriptor and its start, or does not run.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import signal
import sys
from typing import TYPE_CHECKING

from cmapp.guest import proc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

with open(os.path.join(os.path.dirname(__file__), "trampoline.py")) as _file:  # ours, whatever an upgrade puts there
    TRAMPOLINE = (sys.executable, "-I", "-S", "-c", _file.read())
_PLAN, _TROUBLE, _JOIN = 3, 4, 5  # the trampoline's descriptors
_EVERY_SIGNAL = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def spawn(plan: Mapping[str, Any], trouble: int, stdout: int, stderr: int, join: int | None) -> tuple[int, int, int]:
    """Start the trampoline; return its number, its start and a pidfd. Raises OSError when there is no room for it."""
    with open(os.memfd_create("plan", os.MFD_CLOEXEC), "r+b", buffering=0) as file:
        file.write(marshal.dumps({**plan, "join": join is not None}))
        file.seek(0)
        theirs = {_PLAN: file.fileno(), _TROUBLE: trouble, 1: stdout, 2: stderr}
        if join is not None:
            theirs[_JOIN] = join
        copies: list[int] = []
        try:
            for target, descriptor in theirs.items():
                if descriptor <= _JOIN:  # one of those that are about to be replaced
                    copies.append(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _JOIN + 1))
                    theirs[target] = copies[-1]
            pid = _posix_spawn(theirs)
        finally:
            for copy in copies:
                os.close(copy)
    try:
        return pid, _start(pid), os.pidfd_open(pid)
    except OSError:  # no descriptor left: it must not run unwatched
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _posix_spawn(descriptors: Mapping[int, int]) -> int:
    return os.posix_spawn(
        TRAMPOLINE[0],
        TRAMPOLINE,
        {},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            *((os.POSIX_SPAWN_DUP2, descriptor, target) for target, descriptor in descriptors.items()),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_EVERY_SIGNAL,
    )


def _start(pid: int) -> int:
    found = proc.stat(pid)
    if found is None:  # our own child that nobody has reaped, so /proc is not to be seen
        raise OSError(0, "/proc cannot be read")
    return found.start
