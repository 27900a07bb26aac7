"""What an application says of itself by sd_notify(3): a datagram socket of its own, at a path in its environment.

Anybody on this machine may write to the socket, for the application's user must. The invariant: only what the
kernel says was sent by a process of the run's tree is read, so a process that says something and ends at once
is not heard, unless it waits by BARRIER=1 as systemd-notify does. Descriptors that are sent along are closed by
the kernel, which is what BARRIER=1 waits for. A flood is read slowly, and then its senders wait.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from cmapp.core.text import printable
from cmapp.errors import RunError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

log = logging.getLogger(__name__)

LONGEST = 4096  # bytes of a datagram, as for systemd
SHOWN = 300  # characters of a status
AT_ONCE = 50  # datagrams that are read in PAUSE
PAUSE = 0.1  # seconds
_CREDENTIALS = struct.Struct("iII")  # pid, user, group
_HIGHEST_PID = 2**22

ABSTRACT = "@"  # before a name of no file system, from which no folder keeps the application away


class Notice(NamedTuple):
    """One datagram: what it says, whatever else was in it."""

    ready: bool = False
    stopping: bool = False
    beat: bool = False
    trigger: bool = False
    status: str | None = None
    main: int | None = None


def parse_notice(data: bytes) -> Notice:
    """Return what a datagram says: VARIABLE=value lines, of which others than ours are ignored."""
    said: dict[str, str] = {}
    if b"\0" not in data:
        for line in data.decode("utf-8", "replace").split("\n"):
            name, _, value = line.partition("=")
            said.setdefault(name, value)
    status, main = said.get("STATUS"), said.get("MAINPID", "")
    return Notice(
        ready=said.get("READY") == "1",
        stopping=said.get("STOPPING") == "1",
        beat=said.get("WATCHDOG") == "1",
        trigger=said.get("WATCHDOG") == "trigger",
        status=None if status is None else printable(status[:SHOWN]),
        main=_pid(main),
    )


class NotifySocket:
    """The socket at `path`, an abstract one if that begins with @; `hear(notice)` gets what the run's processes say.

    It is heard from `start` on; until then what is said waits in it.
    """

    __slots__ = ("_hear", "_loop", "_owns", "_path", "_pause", "_room", "_since", "_socket", "_warned")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        hear: Callable[[Notice], None],
        owns: Callable[[int], bool],
        descriptor: int | None = None,
    ) -> None:
        """Take over the socket `descriptor`, or bind `path` anew, whatever a server before left there.

        Raises RunError when that is not possible.
        """
        self._loop = loop
        self._path = path
        self._hear = hear
        self._owns = owns
        self._pause: asyncio.TimerHandle | None = None
        self._warned = False
        self._since, self._room = loop.time(), AT_ONCE
        try:
            self._socket = _bound(path) if descriptor is None else socket.socket(fileno=descriptor)
        except OSError as error:
            why = error.strerror or str(error)  # a path that is too long is Python's own refusal
            raise RunError("resources", f"its notification socket {path} cannot be made: {why}") from None
        self._socket.setblocking(False)

    @property
    def descriptor(self) -> int:
        """The socket's descriptor, for the next server in the same process."""
        return self._socket.fileno()

    def start(self) -> None:
        """Hear what is said."""
        if self._pause is None:
            self._loop.add_reader(self._socket, self._on_said)

    def close(self, *, remove: bool) -> None:
        """Hear no more; the path is left to the next server unless `remove`."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if remove and not self._path.startswith(ABSTRACT):
            try:
                os.unlink(self._path)
            except OSError:  # it is of no use to anybody, whoever took it away
                pass

    def _on_said(self) -> None:
        now = self._loop.time()
        if now >= self._since + PAUSE:
            self._since, self._room = now, AT_ONCE
        while self._room:
            self._room -= 1
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
            except OSError:
                return
            sender = _sender(ancillary)
            if not sender or not self._owns(sender):
                self._warn(sender)
            elif not flags & socket.MSG_TRUNC:
                self._take(parse_notice(data))
            if self._socket.fileno() < 0:  # what was heard closed it
                return
        self._loop.remove_reader(self._socket)
        self._pause = self._loop.call_at(self._since + PAUSE, self._go_on)

    def _take(self, notice: Notice) -> None:
        if notice.main is not None and not self._owns(notice.main):
            notice = notice._replace(main=None)
        if any(value is not None and value is not False for value in notice):
            self._hear(notice)

    def _go_on(self) -> None:
        self._pause = None
        self.start()

    def _warn(self, sender: int) -> None:
        if not self._warned:
            self._warned = True
            log.warning("%s: process %d is not of this run, or ended too soon: it is not heard", self._path, sender)


def _bound(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        if path.startswith(ABSTRACT):
            sock.bind("\0" + path[1:])
            return sock
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        sock.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - the folder decides who comes here, the kernel says who spoke
    except OSError:
        sock.close()
        raise
    return sock


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return the process that sent it, 0 if the kernel did not say."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) == _CREDENTIALS.size:
            return int(_CREDENTIALS.unpack(data)[0])
    return 0


def _pid(text: str) -> int | None:
    digits = text if text.isascii() and text.isdigit() and len(text) <= len(str(_HIGHEST_PID)) else "0"
    return int(digits) if 1 < int(digits) <= _HIGHEST_PID else None
