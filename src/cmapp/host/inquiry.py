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

from cmapp import SOFTWARE
from cmapp.core import messages as m
from cmapp.core.duration import format_duration
from cmapp.core.session import Role as Side
from cmapp.core.session import Session
from cmapp.errors import CmappError, LinkError, LocalProtocolError, RemoteProtocolError
from cmapp.host.dial import Dial
from cmapp.net.link import Link
from cmapp.net.tls import Role, explain, peer_identity, require_role

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from typing import Self, TypeVar

    from cmapp.net.address import Address

    M = TypeVar("M", bound=m.Message)

LIMIT = 20.0  # seconds: to connect and be welcomed, and then for each answer
SILENCE = 60.0  # seconds without a word, after which the server may let go of an administrator who was stopped
SEND_LIMIT = 64 * 1024  # bytes that may wait for the server: one request
RUNS_LIMIT = 100_000  # reports of one server; who tells of more is not to be listened to


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

    def __init__(self, guest: Address, address: Address, context: ssl.SSLContext) -> None:
        """Prepare to ask the server at `address`, whose certificate must bear the name of `guest`."""
        self._guest = guest.host
        self._dial = Dial(address)
        self._context = context
        self._session = Session(Side.MANAGER)
        self._link: Link | None = None
        self._heard: list[m.Message | m.Unrecognized] = []
        self._requests = 0
        self._deadline = 0.0

    def __enter__(self) -> Self:
        """Connect, prove ourselves, have the guest prove itself, and say hello."""
        self._deadline = time.monotonic() + LIMIT
        try:
            self._link = self._connected()
            self._greet(self._link)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Say bye and hang up."""
        if self._link is not None:
            try:
                self._link.write(self._session.send(m.Bye("that was all")))
            except CmappError:
                pass  # what was asked for has been answered, or its failure is on its way up
            self._link.hang_up()
        self._close()

    def runs(self) -> Iterator[m.RunReport]:
        """Yield how each run is that this host's key may see, in the order of their names."""
        after, more, count = "", True, 0
        while more:
            page = self._ask(m.Status(self._next_id(), after), m.Runs)
            names = [run.name for run in page.runs]
            more, count = page.more, count + len(names)
            if names != sorted(names) or any(name <= after for name in names) or (more and not names):
                raise RemoteProtocolError(f"{self._guest} does not tell of its runs in the order of their names")
            if count > RUNS_LIMIT:
                raise RemoteProtocolError(f"{self._guest} tells of more than {RUNS_LIMIT} runs")
            yield from page.runs
            after = names[-1] if names else after

    def hold(self, name: str, *, on: bool) -> None:
        """Have the application `name` let be, or no longer. Raises DeclinedError if there is no run of it."""
        self._ask(m.Hold(self._next_id(), name, on), m.Done)

    # ---- one question --------------------------------------------------------------------------------------

    def _greet(self, link: Link) -> None:
        while not link.handshake():
            self._wait_for(link)
        require_role(peer_identity(link.tls), Role.GUEST)
        hello = m.Hello(self._next_id(), m.VERSIONS, SOFTWARE, os.uname().nodename, silence=SILENCE)
        self.welcome = self._answer(link, hello, m.Welcome)
        if self.welcome.version not in m.VERSIONS:
            raise RemoteProtocolError(f"{self._guest} wants version {self.welcome.version}, which was not offered")

    def _ask(self, request: m.Request, kind: type[M]) -> M:
        if self._link is None:
            raise LocalProtocolError("nothing is asked before the server has welcomed us")
        self._deadline = time.monotonic() + LIMIT
        return self._answer(self._link, request, kind)

    def _answer(self, link: Link, request: m.Request, kind: type[M]) -> M:
        """Say `request` and return its answer; nothing else is said to us, for we have launched nothing."""
        line = self._session.send(request)
        try:
            link.write(line)
            while link.waiting:
                self._wait_for(link)
                link.flush()
        except LinkError:
            pass  # whoever hung up has said why, and that still waits to be read; if not, reading fails too
        while isinstance(message := self._hear(link), m.Unrecognized):
            pass  # a push of a newer version
        if isinstance(message, m.Refused):
            raise DeclinedError(message.code, f"{self._guest} declined: {message.text} ({message.code})")
        if isinstance(message, m.Bye):
            raise LinkError(f"{self._guest} hung up: {message.reason or 'it gave no reason'}")
        if not isinstance(message, kind):
            raise RemoteProtocolError(f"{self._guest} said {message.word} where {kind.word} was to be said")
        return message

    def _hear(self, link: Link) -> m.Message | m.Unrecognized:
        while not self._heard:
            data = link.read()
            if data is None:
                raise LinkError(f"{self._guest} closed the connection without a word; its cmappserver may have ended")
            try:
                self._heard.extend(self._session.receive(data))
            except RemoteProtocolError as error:
                raise RemoteProtocolError(f"{self._guest} said what it must not say: {error}") from None
            if not data:
                self._wait_for(link)
            self._look_at_the_clock()
        return self._heard.pop(0)

    def _next_id(self) -> int:
        self._requests += 1
        return self._requests

    # ---- the link ------------------------------------------------------------------------------------------

    def _connected(self) -> Link:
        while (sock := self._dial.step(time.monotonic())) is None:
            if self._dial.sock is not None:
                self._wait(self._dial.sock.fileno(), select.POLLOUT, min(self._dial.deadline, self._deadline))
            self._look_at_the_clock()
        try:
            return Link(sock, self._context, peer=self._guest, limit=SEND_LIMIT, guest=self._guest)
        except OSError as error:
            sock.close()
            raise explain(error, peer=self._guest) from None

    def _wait_for(self, link: Link) -> None:
        self._wait(link.fileno(), select.POLLIN | (select.POLLOUT if link.wants_write else 0), self._deadline)
        self._look_at_the_clock()

    def _wait(self, descriptor: int, events: int, deadline: float) -> None:
        waiting = select.poll()
        waiting.register(descriptor, events)
        waiting.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000)))

    def _look_at_the_clock(self) -> None:
        if time.monotonic() >= self._deadline:
            limit = format_duration(LIMIT)
            raise LinkError(f"{self._guest} did not answer within {limit}; it may be paused, hung or overloaded")

    def _close(self) -> None:
        self._dial.close()
        if self._link is not None:
            self._link.close()
            self._link = None
