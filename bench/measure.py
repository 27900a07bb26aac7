"""What an outsider can see of a process: when it ends, what it costs in memory and in processor time.

Everything here is started by the bench and ended by the bench. The invariant: a process is signalled only
while it is known to be ours, which holds for a child that was not yet waited for and for a pidfd.
The bench is a subreaper, so whatever loses its parent becomes a child of the bench and is found at the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import select
import signal
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER = 36
IN_MODIFY = 2
PATIENCE = 20.0  # seconds that anything may take before the bench gives up


class BenchError(Exception):
    """A benchmark could not be carried out; the text says why."""


class Child:
    """A child process in a session of its own, held by pid and pidfd.

    Its stderr is appended to the file `log`; stdout goes there too, or to the descriptor `stdout`. With `ahead` it
    runs ahead of the rest of the machine, where we may.
    """

    def __init__(
        self,
        argv: list[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        *,
        ahead: bool = False,
    ) -> None:
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 2 if stdout is None else stdout, 1),
        ]
        attributes: dict[str, Any] = {"scheduler": (os.SCHED_RR, os.sched_param(1))} if ahead and may_hurry() else {}
        self.log = log
        self.spawned = time.monotonic_ns()
        self.pid = os.posix_spawn(argv[0], argv, env or {}, file_actions=actions, setsid=True, **attributes)
        self.pidfd = os.pidfd_open(self.pid)

    def wait(self, patience: float = PATIENCE) -> int:
        """Return the exit code, 128 + N for signal N; raises BenchError after `patience` seconds."""
        if not select.select([self.pidfd], [], [], patience)[0]:
            raise BenchError(f"process {self.pid} did not end within {patience:g} s: {self.last_words()}")
        return self.reap()

    def reap(self) -> int:
        """Collect the exit code of a child that is known to have ended."""
        os.close(self.pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code if code >= 0 else 128 - code

    def end(self, number: int = signal.SIGKILL, patience: float = PATIENCE) -> None:
        """Signal it and wait until it is gone, with SIGKILL when the signal did not do."""
        signal.pidfd_send_signal(self.pidfd, number)
        if not select.select([self.pidfd], [], [], patience)[0]:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.wait()

    def last_words(self) -> str:
        """Return the end of what it wrote to its log."""
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-400:].strip()
        return ""


def watch_writes(file: Path) -> int:
    """Return a descriptor that becomes readable whenever the file is written to."""
    watch = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if watch < 0 or LIBC.inotify_add_watch(watch, os.fsencode(file), IN_MODIFY) < 0:
        raise BenchError(f"cannot watch {file}: {os.strerror(ctypes.get_errno())}")
    return int(watch)


def parents() -> dict[int, int]:
    """Return the parent of every process that can be seen."""
    seen = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            seen[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return seen


def family(pid: int) -> set[int]:
    """Return `pid` and all its descendants."""
    tree, known, size = parents(), {pid}, 0
    while len(known) > size:
        size = len(known)
        known |= {child for child, parent in tree.items() if parent in known}
    return known


def server_processes(pid: int, application: str = "sleep") -> list[int]:
    """Return `pid` and what it started to serve, which is every descendant that is no application."""
    return [member for member in family(pid) if member == pid or _command(member) != application]


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def pss(*pids: int) -> float:
    """Return the proportional set size of these processes together, in KiB."""
    lines = [Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() for pid in pids]
    return float(sum(int(line.split()[1]) for each in lines for line in each if line.startswith("Pss:")))


def cpu(pid: int) -> float:
    """Return the processor seconds, user and system, that all threads of the process have used.

    The same as utime + stime of /proc/PID/stat, but from the process's own clock, in nanoseconds.
    """
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)


def median(values: Sequence[float]) -> float:
    """Return the middle value."""
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    """Return the value that 99 of 100 do not exceed: of fewer than 100, the largest."""
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


@functools.cache
def may_hurry() -> bool:
    """Tell whether we may run ahead of others."""
    try:
        _schedule(os.getpid(), os.SCHED_RR, 1)
    except PermissionError:
        return False
    _schedule(os.getpid(), os.SCHED_OTHER, 0)
    return True


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Have the bench, and what it started so far, run ahead of the rest of the machine, where we may.

    The bench itself goes first of all, so that it is never waited for: a manager that works on after its word
    would keep the processor from the one who looks. What is started from here on runs as anything else.
    """
    if not may_hurry():
        yield
        return
    for pid in family(os.getpid()):
        _schedule(pid, os.SCHED_RR, 2 if pid == os.getpid() else 1)
    try:
        yield
    finally:
        for pid in family(os.getpid()):
            _schedule(pid, os.SCHED_OTHER, 0)


def _schedule(pid: int, policy: int, priority: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.sched_setscheduler(pid, policy | os.SCHED_RESET_ON_FORK, os.sched_param(priority))


@contextlib.contextmanager
def nobody_left() -> Iterator[None]:
    """At the end, however it comes, kill and reap every child that was not there at the beginning."""
    me = os.getpid()
    before = {pid for pid, parent in parents().items() if parent == me}
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            left = [pid for pid, parent in parents().items() if parent == me and pid not in before]
            if not left:
                break
            for pid in left:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
