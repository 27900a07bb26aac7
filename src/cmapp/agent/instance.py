"""A resource of the cluster on this host: the process that stands for it, found again by whoever comes later.

Its folder below /run has a file that the process holds locked from before its first instruction to its end, by a
descriptor that it inherits and nobody else has. So whether it lives is asked of the kernel, not of a pid; and whoever
has that very file open is the process. The file's one line says what it was started for. It is written before the
process begins, so an agent that is killed at any point leaves no process behind that the next one does not find.
The invariant: no process is signaled that was not seen to have the file open, after a pidfd of it was opened.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct

from cmapp.agent.ocf import LOCK, PREFIX, AgentError, Code
from cmapp.host.child import PATH, keep_descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["PREFIX", "Instance", "wait_for"]

LINE = 256  # bytes: written over in place, so that a full disk cannot keep it from being changed
_FLOCK = "hhqqi"  # struct flock: type, whence, start, length, pid
_BOOT = "/proc/sys/kernel/random/boot_id"
_DEFAULT = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


class Instance:
    """The resource `name` on this host, whose files are in a folder of its own below `parent`."""

    def __init__(self, parent: str, name: str) -> None:
        if "/" in name or not name:
            raise AgentError(Code.CONFIGURED, f"{name!r} cannot name a resource's folder")
        self.folder = f"{parent.rstrip('/')}/{PREFIX}{name}"
        self._turn = -1

    def path(self, name: str) -> str:
        """Return the path of one of its files."""
        return f"{self.folder}/{name}"

    # ---- what can be seen without waiting ------------------------------------------------------------------

    @property
    def lives(self) -> bool:
        """Whether its process lives."""
        try:
            descriptor = os.open(self.path(LOCK), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            asked = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0))
            return bool(struct.unpack(_FLOCK, asked)[0] != fcntl.F_UNLCK)
        finally:
            os.close(descriptor)

    def told(self) -> list[str] | None:
        """Return the words that say what its process was started for, None if nothing was since this host booted."""
        words = self._line()
        return words[2:] if len(words) > 1 and words[1] == _boot_id() else None

    def _line(self) -> list[str]:
        try:
            with open(self.path(LOCK), encoding="utf-8") as file:
                return file.read(LINE).split()
        except FileNotFoundError:
            return []

    # ---- one action at a time ------------------------------------------------------------------------------

    def take_turn(self) -> None:
        """Wait until no other agent acts on it; the turn ends with this process."""
        if self._turn == -1:
            os.makedirs(self.folder, 0o755, exist_ok=True)
            self._turn = os.open(self.path("turn"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._turn, fcntl.LOCK_EX)

    def begin(self, command: Sequence[str], environ: Mapping[str, str], *words: str) -> int:
        """Start `command` as its process, in a session of its own, and return its pid; it writes to the file `log`.

        It is a child of ours. What it is started for is told by `words`, which have no blanks in them.
        """
        os.chdir("/")
        descriptor = os.open(self.path(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        log = os.open(self.path("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0))
            _note(descriptor, 0, words)
            keep_descriptors()
            os.set_inheritable(descriptor, True)
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ]
            pid = os.posix_spawn(
                command[0],
                tuple(command),
                {"PATH": PATH, **environ},
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=_DEFAULT,
            )
            _note(descriptor, pid, words)
            return pid
        finally:
            os.close(descriptor)
            os.close(log)

    def note(self, *words: str) -> None:
        """Have its process stand for something else; who it is stays as it is."""
        descriptor = os.open(self.path(LOCK), os.O_RDWR | os.O_CLOEXEC)
        try:
            _note(descriptor, int(self._line()[0]), words)
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """Have nothing stand for it any more: its process has ended, and nothing is to be found again."""
        try:
            os.truncate(self.path(LOCK), 0)
        except FileNotFoundError:
            pass

    # ---- its process ---------------------------------------------------------------------------------------

    def holder(self) -> int | None:
        """Return a pidfd of its process, None if there is none."""
        line = self._line()
        noted = [int(line[0])] if line and line[0].isdecimal() and line[0] != "0" else []
        for candidates in (noted, _processes()):
            for pid in candidates:
                if (pidfd := self._proven(pid)) is not None:
                    return pidfd
        return None

    def _proven(self, pid: int) -> int | None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return None
        if pid != os.getpid() and self._has_it_open(pid):
            return pidfd
        os.close(pidfd)
        return None

    def _has_it_open(self, pid: int) -> bool:
        try:
            lock = os.stat(self.path(LOCK))
            folder = f"/proc/{pid}/fd"
            return any(os.path.samestat(lock, os.stat(f"{folder}/{name}")) for name in os.listdir(folder))
        except OSError:  # it has ended, or something that it had open has
            return False

    def signal(self, number: int) -> int | None:
        """Send its process a signal; return a pidfd that tells of its end, None if it has ended."""
        pidfd = self.holder()
        if pidfd is not None:
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                pass
        return pidfd


def wait_for(pidfd: int, seconds: float | None = None) -> bool:
    """Wait for the end of a process, or for so many seconds; return whether it has ended."""
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(None if seconds is None else max(0, round(seconds * 1000))))


def _note(descriptor: int, pid: int, words: Sequence[str]) -> None:
    line = " ".join((str(pid), _boot_id(), *words))
    os.pwrite(descriptor, line.ljust(LINE - 1).encode() + b"\n", 0)


def _boot_id() -> str:
    with open(_BOOT, encoding="ascii") as file:
        return file.read().strip()


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())
