"""Asking somebody else about the guest: a command of the host's, whose first word says how the guest is.

It is read as it writes, never waited for, and killed
when its time is over. The invariant: whoever was asked has been reaped before its answer is told, and every question
has one answer.
"""

from __future__ import annotations

import math
import os
import signal

from cmapp.core.opinion import ANSWER_LIMIT, Opinion, opinion_of
from cmapp.core.patience import OPINION_LIMIT
from cmapp.core.reading import Word
from cmapp.host.child import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Sequence


class Question:
    """A question to `command`; ask it, poll its descriptor until `deadline`, and take the answer."""

    __slots__ = ("_answer", "_command", "_pid", "_pipe", "deadline")

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._pid = self._pipe = -1
        self._answer = b""
        self.deadline = math.inf

    def ask(self, now: float) -> None:
        """Start the command; a command that cannot be started has answered that."""
        self.deadline, self._answer = now + OPINION_LIMIT, b""
        self._pipe, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write, True)
        try:
            self._pid = spawn(self._command, stdout=write)
        except OSError as error:
            self._answer = f"unknown: {self._command[0]} cannot be executed: {error.strerror}".encode()
            self.deadline = now
        finally:
            os.close(write)

    def register(self, waiting: select.poll) -> int:
        """Have the answer waited for; return the descriptor that tells of it, or -1."""
        if self._pipe != -1:
            waiting.register(self._pipe)
        return self._pipe

    def answer(self, now: float) -> Opinion | None:
        """Return the answer once it is whole, or its time is over."""
        if self._pipe == -1:
            return None
        whole, room = False, ANSWER_LIMIT - len(self._answer)
        try:
            data = os.read(self._pipe, room)
            self._answer += data
            whole = not data or len(data) == room
        except BlockingIOError:
            pass
        if not whole and now < self.deadline:
            return None
        self.end()
        if not whole and not self._answer:
            return Opinion(Word.UNKNOWN, f"unknown: {self._command[0]} gave no answer within {OPINION_LIMIT:g} s")
        return opinion_of(self._answer)

    def end(self) -> None:
        """Ask no longer: kill and reap who was asked."""
        self.deadline = math.inf
        if self._pipe != -1:
            os.close(self._pipe)
        if self._pid != -1:
            try:
                os.killpg(self._pid, signal.SIGKILL)  # ours and not reaped: nobody else can have that number
            except ProcessLookupError:
                pass
            os.waitpid(self._pid, 0)
        self._pid = self._pipe = -1
