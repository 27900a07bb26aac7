"""An administrator's questions to a server: connect, be welcomed, ask, hear the answer, hang up.

A manager pursues a run and never waits; whoever asks only wants an answer, so this blocks, over the same dial,
link and session. The invariant: an answer is returned or an error raised within LIMIT of each question, and
nothing is believed before the guest has proven itself.
"""

from __future__ import annotations

import math
import os
import select
import time
from collections import deque

from cmapp import SOFTWARE
from cmapp.core import messages as m
from cmapp.core.duration import format_duration
from cmapp.errors import CmappError, LinkError, LocalProtocolError, RemoteProtocolError
from cmapp.host.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from typing import Self, TypeVar

    from cmapp.net.address import Address
    from cmapp.net.x509 import Statement

    M = TypeVar("M", bound=m.Message)

LIMIT = 20.0  # seconds: to connect and be welcomed, and then for each answer
SILENCE = 60.0  # seconds without a word, after which the server may let go of an administrator who was stopped
SEND_LIMIT = 64 * 1024  # bytes that may wait for the server: one request
RUNS_LIMIT = 100_000  # reports of one server; who tells of more is not to be listened to
TEXT_LIMIT = 16 * 1024 * 1024  # characters of what runs say of themselves, all together


class DeclinedError(CmappError):
    """The server does not do what was asked; `code` is one of the words of `refused` in the protocol."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Inquiry:
    """A link for questions; use it as a context. `welcome` is how the server introduced itself.

    Raises LinkError, TrustError or RemoteProtocolError whenever the link or the server does not hold.
    """

    welcome: m.Welcome

    def __init__(self, guest: Address, address: Address, context: ssl.SSLContext, *, patience: float = LIMIT) -> None:
        """Prepare to ask the server at `address`, whose certificate must bear the name of `guest`.

        It has `patience` seconds to welcome us, and as many for each answer, LIMIT at most.
        """
        self._patience = min(patience, LIMIT)
        self._guest = guest.host
        self._call = Call(guest.host, address, context, limit=SEND_LIMIT)
        self._heard: deque[m.Message | m.Unrecognized] = deque()
        self._requests = 0
        self._deadline = 0.0

    def __enter__(self) -> Self:
        """Connect, prove ourselves, have the guest prove itself, and say hello."""
        self._deadline = time.monotonic() + self._patience
        try:
            self._greet()
        except BaseException:
            self._call.hang_up("it could not be asked")
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Say bye and hang up."""
        self._call.hang_up("that was all")

    def runs(self) -> Iterator[m.RunReport]:
        """Yield how each run is that this host's key may see, in the order of their names."""
        after, more, count, told = "", True, 0, 0
        while more:
            page = self._ask(m.Status(self._next_id(), after), m.Runs)
            names = [run.name for run in page.runs]
            more, count = page.more, count + len(names)
            if names != sorted(names) or any(name <= after for name in names) or (more and not names):
                raise RemoteProtocolError(f"{self._guest} does not tell of its runs in the order of their names")
            told += sum(len(run.health) + len(run.status) for run in page.runs)
            if count > RUNS_LIMIT or told > TEXT_LIMIT:
                raise RemoteProtocolError(f"{self._guest} tells of more than {RUNS_LIMIT} runs, or too much of them")
            yield from page.runs
            after = names[-1] if names else after

    def hold(self, name: str, *, on: bool) -> None:
        """Have the application `name` let be, or no longer. Raises DeclinedError if there is no run of it."""
        self._ask(m.Hold(self._next_id(), name, on), m.Done)

    @property
    def certificate(self) -> Statement | None:
        """What the certificate says by which the guest has proven itself."""
        return self._call.certificate

    # ---- one question --------------------------------------------------------------------------------------

    def _greet(self) -> None:
        ready = False
        while not self._call.connect(time.monotonic(), ready=ready):
            ready = self._wait()
        hello = m.Hello(self._next_id(), m.VERSIONS, SOFTWARE, os.uname().nodename, silence=SILENCE)
        self.welcome = self._answer(hello, m.Welcome)
        if self.welcome.version not in m.VERSIONS:
            raise RemoteProtocolError(f"{self._guest} wants version {self.welcome.version}, which was not offered")

    def _ask(self, request: m.Request, kind: type[M]) -> M:
        if not self._call.spoken:
            raise LocalProtocolError("nothing is asked before the server has welcomed us")
        self._deadline = time.monotonic() + self._patience
        return self._answer(request, kind)

    def _answer(self, request: m.Request, kind: type[M]) -> M:
        """Say `request` and return its answer; nothing else is said to us, for we have launched nothing."""
        try:
            self._call.say(request)
        except LinkError:
            pass  # whoever hung up has said why, and that still waits to be read; if not, reading fails too
        while isinstance(message := self._hear(), m.Unrecognized):
            pass  # a push of a newer version
        if isinstance(message, m.Refused):
            raise DeclinedError(message.code, f"{self._guest} declined: {message.text} ({message.code})")
        if isinstance(message, m.Bye):
            raise LinkError(f"{self._guest} hung up: {message.reason or 'it gave no reason'}")
        if not isinstance(message, kind):
            raise RemoteProtocolError(f"{self._guest} said {message.word} where {kind.word} was to be said")
        return message

    def _hear(self) -> m.Message | m.Unrecognized:
        while not self._heard:
            self._check_deadline()
            try:
                self._heard.extend(self._call.hear())
            except RemoteProtocolError as error:
                raise RemoteProtocolError(f"{self._guest} said what it must not say: {error}") from None
            if not self._heard:
                self._wait()
        return self._heard.popleft()

    def _next_id(self) -> int:
        self._requests += 1
        return self._requests

    def _wait(self) -> bool:
        """Wait until the call has to go on, and return whether that is because of the server; raises LinkError."""
        waiting = select.poll()
        self._call.register(waiting)
        left = min(self._call.deadline, self._deadline) - time.monotonic()
        ready = bool(waiting.poll(max(0, math.ceil(left * 1000))))
        self._check_deadline()
        return ready

    def _check_deadline(self) -> None:
        if time.monotonic() >= self._deadline:
            limit = format_duration(self._patience)
            raise LinkError(f"{self._guest} did not answer within {limit}; it may be paused, hung or overloaded")
