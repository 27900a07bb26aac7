"""What the server says to the machine around it: log lines, and the state that systemd asks for.

Log lines go to stderr. Under systemd they carry the journal's priorities instead of a time of their own. The
invariant: whatever becomes of what was said, the server goes on.
"""

from __future__ import annotations

import array
import logging
import os
import select
import socket
import sys

from cmapp.core.text import fitted

_PATIENCE = 1.0  # seconds that a systemd which is behind is waited for
_TOLD = 200  # bytes of the line that tells of those
LOST = "%d lines of this log were lost: nobody read them, or there was no room"
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _Lines(logging.Formatter):
    """One line a record, whatever stands in it."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(message)s" if journal else "%(asctime)s %(levelname)s: %(message)s", "%b %d %H:%M:%S")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; nobody forges another with a newline in a name, for it is written as one line."""
        line = super().format(record)
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{line}" if self._journal else line


class _Stderr(logging.Handler):
    """Writes lines to stderr, but waits for nobody: a log that is not read must not stop the server."""

    def __init__(self) -> None:
        super().__init__()
        self._lost = 0
        self._descriptor = None if sys.stderr is None else sys.stderr.fileno()
        self._room = select.poll()
        if self._descriptor is not None:
            self._room.register(self._descriptor, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, after the number of those that were lost before it; or lose it too."""
        if self._descriptor is None:
            return
        try:
            if (self._descriptor, select.POLLOUT) not in self._room.poll(0):
                self._lost += 1
                return
            told = b""
            if self._lost:
                lost = logging.makeLogRecord({**vars(record), "msg": LOST, "args": (self._lost,)})
                told, self._lost = fitted(self.format(lost), _TOLD) + b"\n", 0
            # A pipe that has room at all has it for PIPE_BUF bytes, so this does not wait.
            os.write(self._descriptor, told + fitted(self.format(record), select.PIPE_BUF - 1 - len(told)) + b"\n")
        except OSError:
            self._lost += 1  # a full disk, or a reader that is gone


def start_logging(level: str) -> None:
    """Log to stderr from `level` on: error, warning, info or debug."""
    handler = _Stderr()
    handler.setFormatter(_Lines(journal=_is_journal()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _is_journal() -> bool:
    """Tell whether stderr is the journal's: the variable is also inherited by those whose stderr is another."""
    try:
        stderr = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"


def notify(state: str) -> None:
    """Tell systemd `state`, such as READY=1, if it asked for it."""
    try:
        tell_systemd(state, patience=_PATIENCE)
    except OSError as error:
        logging.getLogger(__name__).warning("systemd was not told %s: %s", state.split("\n", 1)[0], error)


def tell_systemd(words: str, *descriptors: int, patience: float) -> None:
    """Tell systemd `words`, and hand it copies of descriptors, if it listens; raises OSError if it does not take them.

    It is waited for `patience` seconds while it is behind.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(patience)
        sock.sendmsg([words.encode()], rights, 0, "\0" + path[1:] if path[0] == "@" else path)
