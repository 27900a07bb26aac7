"""One call of the server: dialed, proven by TLS, and spoken over; its successor begins from nothing.

Responsible for bytes in and out of one connection, and for which errors they are. The invariant: a call that is
hung up has said bye, if it had said anything, and keeps no descriptor.
"""

from __future__ import annotations

import math
import select
import time

from cmapp.core import messages as m
from cmapp.core.session import Role as Side
from cmapp.core.session import Session, State
from cmapp.core.text import printable
from cmapp.errors import LinkError, TrustError
from cmapp.host.dial import Dial
from cmapp.net.identity import Role, require_role
from cmapp.net.link import Link
from cmapp.net.refusals import explain
from cmapp.net.tls import peer_identity, shown_certificate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from cmapp.net.address import Address
    from cmapp.net.x509 import Statement

SEND_LIMIT = 256 * 1024  # bytes that may wait for the server
READS, LONG = 64, 0.05  # turns of reading in a row, seconds: a flood must not keep the clock from being looked at
LAST_READS = 1024  # the same when the link is broken, and what is left is all that there is
REASON_LIMIT = 500  # characters of what our bye repeats


class Call:
    """One connection to a guest's server, from dialing to hanging up; at most `limit` bytes wait to be sent."""

    __slots__ = ("_certificate", "_context", "_dial", "_guest", "_limit", "_link", "_parting", "_proven", "_session")

    def __init__(self, guest: str, address: Address, context: ssl.SSLContext, *, limit: int = SEND_LIMIT) -> None:
        """Call `address`, where the name `guest` must be proven."""
        self._guest = guest
        self._context = context
        self._limit = limit
        self._dial: Dial | None = Dial(address)
        self._link: Link | None = None
        self._session = Session(Side.MANAGER)
        self._parting = b""  # what leaves in one write with our bye
        self._proven = False
        self._certificate: Statement | None = None

    @property
    def deadline(self) -> float:
        """When the dialing has to go on whatever happens."""
        return math.inf if self._dial is None else self._dial.deadline

    @property
    def spoken(self) -> bool:
        """Whether a hello was said, and no bye yet."""
        return self._session.state not in (State.NEW, State.CLOSED)

    @property
    def certificate(self) -> Statement | None:
        """What the certificate says by which the server has proven itself."""
        return self._certificate

    def register(self, waiting: select.poll) -> int:
        """Have `waiting` wait for what the call waits for, and return its descriptor, or -1."""
        if self._link is not None:
            waiting.register(self._link, select.POLLIN | (select.POLLOUT if self._link.wants_write else 0))
            return self._link.fileno()
        if self._dial is not None and self._dial.sock is not None:
            waiting.register(self._dial.sock, select.POLLOUT)
            return self._dial.sock.fileno()
        return -1

    def connect(self, now: float, *, ready: bool) -> bool:
        """Go on until the server has proven itself, and return whether it has. Raises LinkError or TrustError."""
        if self._dial is not None:
            sock = self._dial.step(now)
            if sock is None:
                return False
            self._dial = None
            try:
                self._link = Link(sock, self._context, peer=self._guest, limit=self._limit, guest=self._guest)
            except OSError as error:
                sock.close()
                raise explain(error, peer=self._guest) from None
        elif not ready:
            return False
        if self._link is not None and self._link.handshake():
            require_role(peer_identity(self._link.tls), Role.GUEST)
            self._certificate = shown_certificate(self._link.tls)
            self._proven = True
        return self._proven

    def hear(self, *, to_the_end: bool = False) -> Iterator[m.Message | m.Unrecognized]:
        """Yield what has come, READS reads of it or `to_the_end`. Raises LinkError, TrustError, RemoteProtocolError."""
        began = time.monotonic()
        for _ in range(LAST_READS if to_the_end else READS):
            if self._link is None or (not to_the_end and time.monotonic() - began > LONG):
                return
            if self._link.wants_write:
                self._link.flush()
            data = self._link.read()
            if data is None:
                raise LinkError(f"{self._guest} closed the connection without a word; its cmappserver may have ended")
            if not data:
                return
            yield from self._session.receive(data)

    def say(self, message: m.Message) -> None:
        """Say it now. Raises LinkError or TrustError."""
        if self._link is not None:
            self._link.write(self._session.send(message))

    def say_at_last(self, message: m.Message) -> None:
        """Say it in one write with the bye."""
        self._parting += self._session.send(message)

    def hang_up(self, reason: str) -> None:
        """Say bye if there was a hello, and close, as far as all that goes without waiting."""
        if self._dial is not None:
            self._dial.close()
        link, self._dial, self._link = self._link, None, None
        if link is None:
            return
        try:
            if self.spoken:
                link.write(self._parting + self._session.send(m.Bye(printable(reason)[:REASON_LIMIT])))
            # Closing while there is something left to read would reset what the server has not read yet.
            for _ in range(READS):
                if not link.read():
                    break
        except (LinkError, TrustError):
            pass
        link.hang_up()
        link.close()
