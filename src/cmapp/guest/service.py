"""What the server says to the machine around it: log lines, and the state that systemd asks for.

Log lines go to stderr. Under systemd they carry the journal's priorities instead of a time of their own.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

from cmapp.core.text import printable

_PATIENCE = 1.0  # seconds that a systemd which is behind is waited for
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _Lines(logging.Formatter):
    """One line a record, whatever stands in it."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(message)s" if journal else "%(asctime)s %(levelname)s: %(message)s", "%b %d %H:%M:%S")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; nobody forges another with a newline in a name."""
        line = printable(super().format(record))
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{line}" if self._journal else line


def start_logging(level: str) -> None:
    """Log to stderr from `level` on: error, warning, info or debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(journal=_is_journal()))
    logging.raiseExceptions = False  # a log that cannot be written must not end the server
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
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(_PATIENCE)
        try:
            sock.sendto(state.encode(), "\0" + path[1:] if path[0] == "@" else path)
        except OSError as error:
            logging.getLogger(__name__).warning("systemd was not told %s: %s", state.split("\n", 1)[0], error)
