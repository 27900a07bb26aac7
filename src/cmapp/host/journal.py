"""The package log and syslog: how a line looks, and how it gets out.

Responsible for the two places, not for the words. What the guest has a part in is bounded, for it may be hostile.
The invariant: one line is one write, nothing in a text can make a second one of it, and a place that cannot be
written to neither ends the manager nor holds it up.
"""

from __future__ import annotations

import enum
import errno
import os
import select
import socket
import time

from cmapp.core.text import fitted
from cmapp.errors import SettingsError

STDERR = 2
SYSLOG_SOCKET = "/dev/log"
FACILITY = 3 << 3  # daemon, RFC 3164
LINE_LIMIT = select.PIPE_BUF  # bytes with the newline: a pipe takes them whole or not at all
BURST, WINDOW = 200, 60.0  # lines in so many seconds; a server that wants to fill our disk gets no more
PATIENCE = 0.5  # seconds that the first line waits which a pipe or terminal does not take


class Severity(enum.IntEnum):
    """Of RFC 3164."""

    ERROR = 3
    WARNING = 4
    INFO = 6
    DEBUG = 7


_MARKS = {Severity.ERROR: "ERROR: ", Severity.WARNING: "WARNING: "}


def takes(descriptor: int, patience: float) -> bool:
    """Tell whether a write of up to PIPE_BUF bytes would not wait, now or within `patience` seconds.

    A descriptor of ours may be shared with others, so it must not be made non-blocking.
    """
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return bool(waiting.poll(patience * 1000))


class Journal:
    """Both places, for one subject such as `web on vm1`."""

    def __init__(
        self, path: str, subject: str, *, syslog: str | None, verbose: bool = False, tag: str = "cmappmgr"
    ) -> None:
        """Append to `path`, or standard error if it is empty, as the program `tag`; `syslog` is a socket.

        Raises SettingsError.
        """
        self._path = path or "standard error"
        self._subject = subject
        self._syslog_path = syslog
        self._syslog: socket.socket | None = None
        self._verbose = verbose
        self._fails = False
        self._lines = self._left_out = 0
        self._window = -WINDOW
        self._tag = f"{tag}[{os.getpid()}]"
        self._head = f'Node "{socket.gethostname()}": {self._tag} {subject}: '
        self._descriptor = _opened(path) if path else STDERR

    def error(self, text: str) -> None:
        """Tell of something that went wrong for good."""
        self._tell(Severity.ERROR, text)

    def warning(self, text: str) -> None:
        """Tell of something that may go wrong."""
        if self._has_room():
            self._tell(Severity.WARNING, text)

    def info(self, text: str) -> None:
        """Tell of something that everybody wants to know."""
        if self._has_room():
            self._tell(Severity.INFO, text)

    def conclude(self, text: str, *, well: bool) -> None:
        """Tell how it ended: whatever was said before, that is."""
        self._tell_left_out()
        self._tell(Severity.INFO if well else Severity.ERROR, text)

    def debug(self, text: str) -> None:
        """Tell those who want to know everything."""
        if self._verbose:
            self._tell(Severity.DEBUG, text)

    def quote(self, stream: str, text: str) -> None:
        """Pass on a line of the application, to the package log only."""
        self._append(f"{stream}: {text}")

    def refuse(self, text: str) -> None:
        """Tell the user as well, on standard error, why the work was not done."""
        if self._descriptor != STDERR:
            self._append(f"ERROR: {text}")
        complain(text)
        self._send(Severity.ERROR, text)

    def _has_room(self) -> bool:
        """Count a line, and tell whether there is room for it."""
        now = time.monotonic()
        if now - self._window >= WINDOW:
            self._window, self._lines = now, 0
            self._tell_left_out()
        self._lines += 1
        self._left_out += self._lines > BURST
        if self._lines == BURST + 1:
            self._tell(Severity.WARNING, f"there is too much to say: lines are left out, beyond {BURST} a minute")
        return self._lines <= BURST

    def _tell_left_out(self) -> None:
        left_out, self._left_out = self._left_out, 0
        if left_out:
            self._tell(Severity.WARNING, f"{left_out} lines were left out")

    def _tell(self, severity: Severity, text: str) -> None:
        self._append(_MARKS.get(severity, "") + text)
        self._send(severity, text)

    def _append(self, text: str) -> None:
        problem = _write(self._descriptor, f"{_now()} - {self._head}{text}", 0 if self._fails else PATIENCE)
        if problem and not self._fails:
            trouble = f"the package log cannot be written to {self._path}: {problem}"
            if self._descriptor != STDERR:
                complain(trouble)
            self._send(Severity.ERROR, trouble)
        self._fails = bool(problem)

    def _send(self, severity: Severity, text: str) -> None:
        if self._syslog_path is None:
            return
        mark = _MARKS.get(severity, "")
        line = _line(f"<{FACILITY | severity}>{_now()} {self._tag}: {self._subject}: {mark}{text}")
        # The second time is for a syslogd that was started again: the socket leads to the one before.
        for _ in range(2):
            try:
                if self._syslog is None:
                    self._syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                    self._syslog.connect(self._syslog_path)
                self._syslog.send(line)
            except OSError:
                if self._syslog is not None:
                    self._syslog.close()
                self._syslog = None
            else:
                return


def complain(text: str) -> None:
    """Write one line for the user to standard error, as far as it goes."""
    _write(STDERR, f"cmappmgr: {text}", PATIENCE)


def _write(descriptor: int, text: str, patience: float) -> str:
    """Write one line, and return what was the matter, or an empty string."""
    line = _line(text) + b"\n"
    try:
        if not takes(descriptor, patience):
            return "nobody reads it"
        return "" if os.write(descriptor, line) == len(line) else os.strerror(errno.ENOSPC)
    except BlockingIOError:
        return "nobody reads it"
    except OSError as error:
        return error.strerror or str(error)


def _line(text: str) -> bytes:
    return fitted(text, LINE_LIMIT - 1)


def _now() -> str:
    return time.strftime("%b %e %H:%M:%S")


def _opened(path: str) -> int:
    # Without O_NONBLOCK the open of a pipe that nobody reads would not return.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK
    try:
        return os.open(path, flags, 0o640)
    except OSError as error:
        raise SettingsError(f"the package log {path} cannot be opened: {error.strerror}") from None
