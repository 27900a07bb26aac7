"""What /proc says of processes: who lives, below whom, since when, and what it uses.

A process is known by its number and its start together: the number alone may be somebody else's a moment later.
The invariant: None means that the process is gone or not ours to see; for want of descriptors or memory OSError
is raised instead, because not to see anybody does not mean that nobody is there.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

YOUNG = 10.0  # seconds
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_BLIND = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_LAST_FIELD = 49  # where the wait status is, counted from the state


class Stat(NamedTuple):
    """What /proc/PID/stat says.

    `cpu` is in seconds of processor time with waited-for children, `memory` in resident bytes, `start` in ticks since
    the machine was booted. `status` is the wait status of a zombie, 0 too when we may not know it.
    """

    state: str
    parent: int
    group: int
    session: int
    cpu: float
    threads: int
    start: int
    memory: int
    status: int

    @property
    def alive(self) -> bool:
        """Whether it may still run: a process whose first thread has ended lives on in its others."""
        return self.state not in "ZX" or self.threads > 1


class Usage(NamedTuple):
    """What a tree uses: seconds of processor time, resident bytes, processes."""

    cpu: float
    memory: int
    processes: int


def read(path: str) -> bytes:
    """Return a small file of /proc: without a file object, as this is most of what a poll costs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while data := os.read(descriptor, 65536):
            content += data
        return content
    finally:
        os.close(descriptor)


def stat(pid: int) -> Stat | None:
    """Return what /proc says of `pid`, or None if it is gone."""
    try:
        words = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError as error:
        unless_blind(error)
        return None
    if len(words) <= _LAST_FIELD:
        return None  # it went while it was read
    ticks = sum(int(word) for word in words[11:15])
    return Stat(
        state=words[0].decode(),
        parent=int(words[1]),
        group=int(words[2]),
        session=int(words[3]),
        cpu=ticks / _TICKS,
        threads=int(words[17]),
        start=int(words[19]),
        memory=int(words[21]) * _PAGE,
        status=int(words[_LAST_FIELD]),
    )


def children(pid: int) -> list[int]:
    """Return the children of all threads of `pid`."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += [int(word) for word in read(f"/proc/{pid}/task/{thread}/children").split()]
    except OSError as error:
        unless_blind(error)  # or else it ended while we looked
    return found


def processes() -> list[int]:
    """Return all processes that can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def has_variable(pid: int, variable: bytes) -> bool:
    """Tell whether the process was started with `NAME=value` in its environment, as far as we may know."""
    try:
        return variable in read(f"/proc/{pid}/environ").split(b"\0")
    except OSError as error:
        unless_blind(error)
        return False


def is_being_executed(pid: int) -> bool:
    """Tell whether a young process shows no environment: the kernel has none to show for a moment at each execution."""
    try:
        found = None if read(f"/proc/{pid}/environ") else stat(pid)
    except OSError as error:
        unless_blind(error)
        return False
    return found is not None and found.alive and time.clock_gettime(time.CLOCK_BOOTTIME) - found.start / _TICKS < YOUNG


def usage_of(pids: Iterable[int]) -> Usage:
    """Return what these processes use, as far as it can be seen: a report is no judgement."""
    try:
        stats = [found for found in map(stat, pids) if found is not None]
    except OSError:
        return Usage(0.0, 0, 0)
    return Usage(sum(item.cpu for item in stats), sum(item.memory for item in stats), len(stats))


def unless_blind(error: OSError) -> None:
    """Raise the error again if it means that we cannot look, instead of that there is nothing to see."""
    if error.errno in _BLIND:
        raise error
