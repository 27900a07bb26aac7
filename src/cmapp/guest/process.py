"""One launched process: started by the trampoline, watched and signalled by its identity, measured in /proc.

The process leads a session and a process group of its own. The invariant: its zombie is kept until nothing of
its group is left, so its number cannot become somebody else's while we may still signal the group.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

from cmapp.core.outcome import Exited, Signaled, Unknown
from cmapp.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cmapp.core.outcome import Outcome

with open(os.path.join(os.path.dirname(__file__), "trampoline.py")) as _file:  # ours, whatever an upgrade puts there
    _TRAMPOLINE = (sys.executable, "-I", "-S", "-c", _file.read())
_STDERR = 2
_PLAN, _TROUBLE = 3, 4  # the trampoline's descriptors
_ABOUT_TO = b"+"  # what it says right before it becomes the application
_EVERY_SIGNAL = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_COUNTED = 4096  # processes of one tree that are looked at for a report


class Stat(NamedTuple):
    """What /proc/PID/stat says: seconds of processor time with waited-for children, and resident bytes."""

    state: str
    parent: int
    group: int
    cpu: float
    memory: int


class Usage(NamedTuple):
    """What a tree uses: seconds of processor time, resident bytes, processes."""

    cpu: float
    memory: int
    processes: int


class Process:
    """A process that we started: descriptors for its end, its trouble and its output, all ours to close."""

    __slots__ = ("_said", "pid", "pidfd", "stderr", "stdout", "trouble", "trouble_read")

    def __init__(self, plan: Mapping[str, Any]) -> None:
        """Start the trampoline with `plan`; raises RunError when the machine has no room for it."""
        theirs: list[int] = []
        ours: list[int] = []
        try:
            theirs.append(_plan_file(plan))
            for _ in range(3):
                reading, writing = os.pipe2(os.O_CLOEXEC)
                ours.append(reading)
                theirs.append(_above(writing))
                os.set_blocking(reading, False)
            self.pid = _spawn(*theirs)
            self.pidfd = _pidfd_of_child(self.pid)
        except OSError as error:
            for descriptor in ours:
                os.close(descriptor)
            raise RunError("resources", f"the guest has no room for it: {error.strerror}") from None
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self.trouble, self.stdout, self.stderr = ours
        self.trouble_read = False
        self._said = b""

    def hear_trouble(self) -> bool:
        """Read what the trampoline has said so far; return whether it will say no more."""
        try:
            while said := os.read(self.trouble, 65536):
                self._said += said
        except BlockingIOError:
            return False
        return True

    def take_trouble(self) -> tuple[str, str] | None:
        """Return why the application could not be started, None if it was; to be asked once, when all is said."""
        os.close(self.trouble)
        self.trouble_read = True
        if self._said == _ABOUT_TO:
            return None
        told: tuple[str, str] | None = None
        if said := self._said.removeprefix(_ABOUT_TO):
            told = marshal.loads(said)  # noqa: S302 - written by our own trampoline
        return told or ("resources", "the process that was to become it ended before it could")

    def outcome(self) -> Outcome | None:
        """Return how the process ended, without reaping it, or None while it lives."""
        try:
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return Unknown("somebody else took its status")
        if ended is None:
            return None
        if ended.si_code == os.CLD_EXITED:
            return Exited(ended.si_status)
        return Signaled(ended.si_status, core_dumped=ended.si_code == os.CLD_DUMPED)

    def signal_group(self, number: int) -> None:
        """Signal the whole group; the process must not have been reaped."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # only what we may not signal is left: the caller looks again, and complains in time

    def reap(self) -> None:
        """Forget the process, which must have ended: its number is free from here on."""
        try:
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass
        os.close(self.pidfd)


def _plan_file(plan: Mapping[str, Any]) -> int:
    descriptor = _above(os.memfd_create("plan", os.MFD_CLOEXEC))
    os.write(descriptor, marshal.dumps(dict(plan)))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _above(descriptor: int) -> int:
    """Return `descriptor`, or a copy that is none of those that the trampoline is given."""
    if descriptor > _TROUBLE:
        return descriptor
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _TROUBLE + 1)
    os.close(descriptor)
    return copy


def _spawn(plan: int, trouble: int, stdout: int, stderr: int) -> int:
    return os.posix_spawn(
        _TRAMPOLINE[0],
        _TRAMPOLINE,
        {},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, stdout, 1),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
            (os.POSIX_SPAWN_DUP2, plan, _PLAN),
            (os.POSIX_SPAWN_DUP2, trouble, _TROUBLE),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_EVERY_SIGNAL,
    )


def _pidfd_of_child(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:  # no descriptor left: it must not run unwatched
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _read(path: str) -> bytes:
    """Return a small file of /proc: without a file object, as this is most of what a poll costs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while data := os.read(descriptor, 65536):
            content += data
        return content
    finally:
        os.close(descriptor)


def keep_descriptors() -> None:
    """Hand no descriptor on that whoever started us may have left open; those that we open are our own anyway."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _STDERR:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                continue  # it was the one that listed them


def stat(pid: int) -> Stat | None:
    """Return what /proc says of `pid`, or None if it is gone."""
    try:
        words = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    ticks = sum(int(word) for word in words[11:15])
    return Stat(words[0].decode(), int(words[1]), int(words[2]), ticks / _TICKS, int(words[21]) * _PAGE)


def children(pid: int) -> list[int]:
    """Return the children of all threads of `pid`."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += [int(word) for word in _read(f"/proc/{pid}/task/{thread}/children").split()]
    except OSError:
        pass  # it ended while we looked
    return found


def descendants(*roots: int) -> list[int]:
    """Return `roots` and all below them, as far as they can be seen at one look."""
    tree = list(roots)
    for pid in tree:
        if len(tree) > _COUNTED:
            break
        tree += children(pid)
    return tree


def usage(pid: int) -> Usage:
    """Return what the tree below and with `pid` uses."""
    stats = [found for found in map(stat, descendants(pid)) if found is not None]
    return Usage(sum(item.cpu for item in stats), sum(item.memory for item in stats), len(stats))
