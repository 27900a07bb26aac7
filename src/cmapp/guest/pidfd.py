"""Descriptors of processes: opened only for the very process that is meant, and asked how it ended.

A pidfd stays with its process when the number goes to another. The invariant: what is opened here was seen,
after it was opened, to be the process of that number and that start; an ending that nobody can tell is None or
Unknown and never a code.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

from cmapp.core.outcome import Exited, Signaled, Unknown
from cmapp.guest import proc

if TYPE_CHECKING:
    from cmapp.core.outcome import Outcome

_INFO_SIZE = 64  # bytes of the first struct pidfd_info; its last int is the wait status
_GET_INFO = 3 << 30 | _INFO_SIZE << 16 | 0xFF << 8 | 11  # _IOWR(0xFF, 11, struct pidfd_info), Linux 6.13
_INFO_EXIT = 1 << 3  # Linux 6.15: told once the process was reaped, by whomever
_TO_THE_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_CAP_SYS_PTRACE = 19


def open_proven(pid: int, start: int, *, zombies: bool = False) -> int | None:
    """Return a pidfd of the process of that number and start, or None if it is gone.

    Raises OSError when there is no descriptor left, which says nothing about the process.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _SCARCE:
            raise
        return None
    try:
        found = proc.stat(pid)
    except OSError:
        os.close(descriptor)
        raise
    # If it still lives it is what /proc told of; if not, no signal by the descriptor reaches anybody.
    if found is not None and found.start == start and (zombies or found.alive):
        return descriptor
    os.close(descriptor)
    return None


def send(descriptor: int, number: int) -> bool:
    """Signal the process of the pidfd; return whether it was there and we may."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def send_to_group(descriptor: int, number: int) -> bool:
    """Signal the group whose number the process has, even after its end; return whether the kernel knows how to."""
    try:
        signal.pidfd_send_signal(descriptor, number, None, _TO_THE_GROUP)
    except (ProcessLookupError, PermissionError):
        return True  # nobody is left, or only what we may not signal
    except OSError:
        return False
    return True


def process_of(descriptor: int) -> int:
    """Return the number of the pidfd's process, -1 if it was reaped; raises OSError if it is no pidfd."""
    for line in proc.read(f"/proc/self/fdinfo/{descriptor}").splitlines():
        if line.startswith(b"Pid:"):
            return int(line[4:])
    raise OSError(errno.EBADF, "not a pidfd")


def has_ended(descriptor: int) -> bool:
    """Tell whether the pidfd is readable, which means that its process has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def ending_of_child(descriptor: int) -> Outcome | None:
    """Return how our child ended, without reaping it, None while it lives; raises ChildProcessError if it is none."""
    ended = os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    if ended.si_code == os.CLD_EXITED:
        return Exited(ended.si_status)
    return Signaled(ended.si_status, core_dumped=ended.si_code == os.CLD_DUMPED)


def ending_of_stranger(descriptor: int, pid: int, start: int) -> Outcome | None:
    """Return how a process that is not our child, and has ended, did so; None if that is not told yet.

    It is told when its parent reaps it (Linux 6.15), and before that, to those who may know, by the zombie.
    """
    zombie = proc.stat(pid)
    if zombie is not None and zombie.start != start:
        zombie = None
    if zombie is not None and not zombie.alive and (zombie.status or _may_know_all()):
        return _from_status(zombie.status)
    info = bytearray(_INFO_EXIT.to_bytes(8, sys.byteorder).ljust(_INFO_SIZE, b"\0"))
    try:
        fcntl.ioctl(descriptor, _GET_INFO, info)
    except OSError:
        told = 0  # a kernel that does not know the question, or one that forgets what was reaped
    else:
        told = int.from_bytes(info[:8], sys.byteorder) & _INFO_EXIT
    if told:
        return _from_status(int.from_bytes(info[-4:], sys.byteorder))
    if zombie is not None:
        return None
    return Unknown("it was not the server's child, and how such a process ended only Linux 6.15 and later tells")


def _from_status(status: int) -> Outcome:
    if os.WIFEXITED(status):
        return Exited(os.WEXITSTATUS(status))
    if os.WIFSIGNALED(status):
        return Signaled(os.WTERMSIG(status), core_dumped=os.WCOREDUMP(status))
    return Unknown(f"the kernel gives {status:#x} as its status")


def _may_know_all() -> bool:
    """Tell whether a zombie's status 0 means 0: to others than these the kernel says 0 whatever it was."""
    for line in proc.read("/proc/self/status").splitlines():
        if line.startswith(b"CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_PTRACE & 1)
    return False
