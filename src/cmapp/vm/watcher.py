"""Who watches a virtual machine on this host: one process at a time, and found by whoever wants it to stop.

It holds a file locked as long as it lives; the file names it by its number and its start. The invariant: no signal
goes to a process that is not proven to be the one that was named, while the lock is held.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal

from cmapp.errors import SettingsError

_STARTED = 19  # the field of /proc/PID/stat after the name, from the state on


class Watcher:
    """The note of a machine's watcher."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._path = f"{folder}/vm-{name.replace('%', '%25').replace('/', '%2F')}.lock"
        self._descriptor = -1

    def take(self) -> bool:
        """Become the watcher; return whether nobody else is. Raises SettingsError if it cannot be noted."""
        try:
            os.makedirs(self._folder, 0o755, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise SettingsError(f"{self._path} cannot be made: {error.strerror}; --state-dir names another") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {_start(os.getpid())}\n".encode(), 0)
        return True

    def signal(self, number: int) -> int | None:
        """Signal the watcher, and return a pidfd that is readable at its end; None if there is none to be proven."""
        try:
            with open(self._path, encoding="ascii") as file:
                pid, start = (int(word) for word in file.read(64).split())
            descriptor = os.pidfd_open(pid)
        except (OSError, ValueError):
            return None
        if _start(pid) == start and not _is_free(self._path):
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                pass
            return descriptor
        os.close(descriptor)
        return None


def wait_for(descriptor: int, seconds: float) -> bool:
    """Wait for the end of a pidfd's process; return whether it has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _is_free(path: str) -> bool:
    """Tell whether nobody holds the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _start(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[_STARTED])
