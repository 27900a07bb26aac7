"""A process that is sent to do one thing and to tell of it: libvirt's side, or a command of the user's.

Whatever may wait for somebody else, as each call of libvirt does, is done by such a process, so that the guest
service never waits. It is over when the process has ended, whoever else still has what it writes to. The invariant:
an errand that is over its time is killed with all of its group, and what it had not said by then is not known.
"""

from __future__ import annotations

import os
import select
import signal
import time

from cmapp.host.child import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SAID_LIMIT = 64 * 1024  # bytes that are kept of what an errand says; the rest is lost
_CHUNK = 16384


class Errand:
    """One process; `code` is its exit code once it `ended`, None while it runs or if a signal ended it.

    A `live` one is heard while it runs, over a pipe. What another says goes to memory of its own and is read at its
    end: a command may leave a process behind that keeps its standard output, and must not be ended by a broken pipe.
    """

    __slots__ = ("_buffer", "_deadline", "_live", "_pidfd", "_read", "argv", "code", "ended", "late", "lines", "pid")

    def __init__(
        self,
        argv: Sequence[str],
        *,
        limit: float = 0.0,
        env: Mapping[str, str] | None = None,
        live: bool = False,
    ) -> None:
        """Start it, for `limit` seconds at most, 0 for as long as it takes; raises OSError if it cannot be started.

        Its environment is PATH, LC_ALL=C and `env`; what it says on standard error goes where ours goes.
        """
        self.argv = tuple(argv)
        self.code: int | None = None
        self.ended = self.late = False
        self.lines: list[str] = []
        self._buffer = b""
        self._live = live
        self._deadline = time.monotonic() + limit if limit else 0.0
        if live:
            self._read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            os.set_blocking(write, True)
        else:
            self._read = os.memfd_create("errand")
            write = os.dup(self._read)
        try:
            self.pid = spawn(argv, stdout=write, env=env)
        except OSError:
            os.close(self._read)
            raise
        finally:
            os.close(write)
        self._pidfd = os.pidfd_open(self.pid)

    @property
    def deadline(self) -> float:
        """When it is killed, or 0."""
        return self._deadline

    def register(self, waiting: select.poll) -> None:
        """Have `waiting` wait for its words and its end."""
        if not self.ended:
            waiting.register(self._pidfd, select.POLLIN)
        if self._live and self._read != -1:
            waiting.register(self._read, select.POLLIN)

    def go_on(self, now: float) -> list[str]:
        """Return the lines that it has said since, and see whether it has ended, or is over its time."""
        if self.ended:
            return []
        over = self._over()
        if over:
            self._reap()
        elif self._deadline and now >= self._deadline:
            self.late = over = True
            self.kill()
        self._hear()
        *lines, self._buffer = self._buffer.split(b"\n")
        if over and self._buffer:
            lines.append(self._buffer)
        said = [line.decode("utf-8", "replace") for line in lines]
        self.lines = (self.lines + said)[-1000:]
        return said

    def wait(self) -> list[str]:
        """Wait for its end, within its time, and return all that it has said."""
        while not self.ended:
            waiting = select.poll()
            self.register(waiting)
            left = self._deadline - time.monotonic() if self._deadline else None
            waiting.poll(None if left is None else max(0.0, left * 1000) + 1)
            self.go_on(time.monotonic())
        return self.lines

    def kill(self) -> None:
        """Kill it and its group, and reap it."""
        if self.ended:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)  # ours and not reaped: nobody else can have that number
        except ProcessLookupError:
            pass
        self._reap()

    def _over(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _hear(self) -> None:
        """Read what there is, if it is to be read now."""
        if self._read == -1 or not (self._live or self.ended):
            return
        if not self._live:
            os.lseek(self._read, 0, os.SEEK_SET)
        while True:
            try:
                data = os.read(self._read, _CHUNK)
            except BlockingIOError:
                break
            if len(self._buffer) < SAID_LIMIT:
                self._buffer += data
            if not data:
                os.close(self._read)
                self._read = -1
                return
        if self.ended:
            os.close(self._read)
            self._read = -1

    def _reap(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        self.ended = True
        os.close(self._pidfd)
