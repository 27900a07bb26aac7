"""Whether an application is ready, asked again and again from outside: by TCP, by HTTP, by a command.

Everything here is one attempt at a time on the server's loop, which never waits: sockets do not block, and no
name is looked up (see core/readiness.py). The invariant: nobody is judged here. An attempt that fails is
followed by another, and how long that may go on is the lifecycle's matter.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

from cmapp.core.duration import format_duration
from cmapp.core.readiness import Target, target_of
from cmapp.core.text import printable
from cmapp.guest.trial import Trial, trouble_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmapp.core.outcome import Outcome
    from cmapp.core.rules import ReadyRules
    from cmapp.guest.trial import RunCommand

FIRST_PAUSE = 0.2  # seconds between attempts; each is longer by half
LONGEST_PAUSE = 2.0
ANSWER_LIMIT = 5.0  # seconds for a host to answer
COMMAND_LIMIT = 10.0  # seconds for a command that tells of readiness
HEARD = 1024  # bytes of an answer that are looked at: its first line
CODE = 3  # digits of what an answer says first
SHOWN = 200  # characters of what somebody said
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no orderly end


class Knock:
    """One attempt to be answered by `target`; `done` gets what went wrong, "" if nothing, once, and never at once."""

    __slots__ = ("_done", "_host", "_hosts", "_loop", "_request", "_said", "_socket", "_target", "_timer", "_trouble")

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Target, done: Callable[[str], None]) -> None:
        self._loop = loop
        self._target = target
        self._done = done
        self._hosts = list(target.hosts)
        self._host = ""
        self._trouble = ""
        self._socket: socket.socket | None = None
        self._request = self._said = b""
        self._timer: asyncio.Handle = loop.call_soon(self._try_next)

    def close(self) -> None:
        """Give it up; `done` is not told."""
        self._timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None

    def _try_next(self) -> None:
        """Connect to the next host; the first trouble is the one that is told."""
        self.close()
        if not self._hosts:
            self._done(self._trouble)
            return
        self._host = self._hosts.pop(0)
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._timer = self._loop.call_later(ANSWER_LIMIT, self._on_silence)
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            code = self._socket.connect_ex((self._host, self._target.port))
        except OSError as error:
            code = error.errno or errno.EIO
        if code in (0, errno.EINPROGRESS) and self._socket is not None:
            self._loop.add_writer(self._socket, self._on_connected)
        else:
            self._fail(os.strerror(code))

    def _fail(self, trouble: str) -> None:
        at = f"[{self._host}]" if ":" in self._host else self._host
        self._trouble = self._trouble or f"{at}:{self._target.port}: {trouble}"
        self._try_next()

    def _conclude(self, trouble: str) -> None:
        """Tell what this host answered, whatever the others would say."""
        self._hosts.clear()
        if trouble:
            self._trouble = ""
            self._fail(trouble)
        else:
            self.close()
            self._done("")

    def _on_silence(self) -> None:
        self._fail(f"gave no answer within {format_duration(ANSWER_LIMIT)}")

    def _on_connected(self) -> None:
        sock = self._socket
        if sock is None:
            return
        self._loop.remove_writer(sock)
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(os.strerror(code))
        elif is_own_echo(sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # and the port is free again at once
            self._fail(os.strerror(errno.ECONNREFUSED))
        elif self._target.authority:
            self._request = (
                f"GET {self._target.path} HTTP/1.1\r\nHost: {self._target.authority}\r\n"
                "User-Agent: cmappserver\r\nAccept: */*\r\nConnection: close\r\n\r\n"
            ).encode("ascii")
            self._loop.add_writer(sock, self._on_room)
            self._loop.add_reader(sock, self._on_said)
        else:
            self._conclude("")

    def _on_room(self) -> None:
        if self._socket is None:
            return
        try:
            self._request = self._request[self._socket.send(self._request) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._conclude(error.strerror or str(error))
            return
        if not self._request:
            self._loop.remove_writer(self._socket)

    def _on_said(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(HEARD)
        except BlockingIOError:
            return
        except OSError as error:
            self._conclude(error.strerror or str(error))
            return
        self._said += data
        if not data or b"\n" in self._said or len(self._said) >= HEARD:
            self._conclude(_http_trouble(self._said))


def is_own_echo(sock: socket.socket) -> bool:
    """Tell whether `sock` is connected to itself.

    TCP does that where nobody listens on a port from which connections are also made, once in 28,000 attempts.
    """
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # it hung up already, which is an answer
        return False


def _http_trouble(said: bytes) -> str:
    """Return what is wrong with the answer whose beginning is `said`, "" if it is 2xx or 3xx."""
    if not said:
        return "hung up without an answer"
    version, _, answer = said.partition(b"\n")[0].strip().partition(b" ")
    code = answer[:CODE]
    if not version.startswith(b"HTTP/") or len(code) < CODE or not code.isdigit() or answer[CODE : CODE + 1].strip():
        return "what answers does not speak HTTP"
    return "" if code[:1] in (b"2", b"3") else f"answered {printable(answer[:SHOWN].decode('ascii', 'replace'))}"


class Readiness:
    """Attempts until one succeeds; `done` is told that, once. `trouble` is what the last one met."""

    __slots__ = (
        "_attempt",
        "_done",
        "_loop",
        "_pause",
        "_rules",
        "_run_command",
        "_silent",
        "_target",
        "_timer",
        "trouble",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rules: ReadyRules,
        run_command: RunCommand,
        done: Callable[[], None],
    ) -> None:
        """Begin at once; raises SettingsError for rules that nobody can follow."""
        self._loop = loop
        self._rules = rules
        self._run_command = run_command
        self._done = done
        self._target = target_of(rules)
        self._pause = FIRST_PAUSE
        self._silent = False
        self._attempt: Knock | Trial | None = None
        self.trouble = ""
        self._timer: asyncio.Handle = loop.call_soon(self._try)

    def close(self) -> None:
        """Stop asking."""
        self._timer.cancel()
        if isinstance(self._attempt, Knock):
            self._attempt.close()
        elif self._attempt is not None:
            self._attempt.forget()
        self._attempt = None

    def _try(self) -> None:
        if self._target is not None:
            self._attempt = Knock(self._loop, self._target, self._on_answer)
            return
        self._silent = False
        self._timer = self._loop.call_later(COMMAND_LIMIT, self._on_silence)
        self._attempt = Trial(self._run_command, self._rules.command, {}, self._on_end)

    def _on_silence(self) -> None:
        """Kill the command; its end is waited for, so that there are never two."""
        self._silent = True
        self.trouble = f"gave no answer within {format_duration(COMMAND_LIMIT)}"
        if isinstance(self._attempt, Trial):
            self._attempt.kill()

    def _on_end(self, outcome: Outcome | None, line: str) -> None:
        self._on_answer(self.trouble if self._silent else trouble_of(outcome, line))

    def _on_answer(self, trouble: str) -> None:
        self._timer.cancel()
        self._attempt = None
        self.trouble = trouble
        if trouble:
            self._timer = self._loop.call_later(self._pause, self._try)
            self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
        else:
            self._done()
