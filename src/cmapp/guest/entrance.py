"""Strangers on the event loop: they wait, shake hands in turns, and are managers, or are hung up on.

Who comes in when, and who gives way, is for the gate to say. A stranger that waits is a socket and nothing more; it
is given TLS when it begins. The invariant: no byte of a stranger reaches anything but TLS, and who has proven itself
is handed over exactly once.
"""

from __future__ import annotations

import logging
import socket
import time
from functools import partial
from typing import TYPE_CHECKING

from cmapp.errors import LinkError, TrustError
from cmapp.guest.turns import Turns
from cmapp.net.link import Link

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable

    from cmapp.guest.complaints import Complaints
    from cmapp.guest.gate import Gate
    from cmapp.net.identity import Identity

BUDGET = 0.002  # seconds of strangers' handshakes in one turn of the loop: one or two steps
LOOK_AGAIN = 0.02  # seconds until it is looked again whether one who waits may begin
LINGER = 3.0  # seconds that a stranger who was turned away is given to read why
LEAVING_LIMIT = 64  # strangers who are given that time at once


class Stranger:
    """A connection that has not proven itself."""

    __slots__ = ("link", "peer", "sock", "timer")

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self.link: Link | None = None
        self.timer: asyncio.TimerHandle | None = None


class Entrance:
    """Lets strangers in, as far as `gate` allows; `admit` gets the link of each who has proven itself."""

    def __init__(  # noqa: PLR0913 - what it needs of the server
        self,
        loop: asyncio.AbstractEventLoop,
        gate: Gate[Stranger],
        complaints: Complaints,
        *,
        context: Callable[[], ssl.SSLContext],
        identify: Callable[[Link], Identity],
        admit: Callable[[Link, Identity], None],
        limit: int,
    ) -> None:
        """Make links with `context` which let `limit` bytes wait, and have `identify` say whose they are."""
        self._loop = loop
        self._gate = gate
        self._complain = complaints.log
        self._context = context
        self._identify = identify
        self._admit = admit
        self._limit = limit
        self._turns = Turns(loop, BUDGET)
        self._strangers: dict[Stranger, None] = {}
        self._leaving: dict[Stranger, None] = {}
        self._asked = False

    def let_in(self, sock: socket.socket, peer: str, source: str) -> None:
        """Take a connection over that was just made."""
        sock.setblocking(False)
        stranger = Stranger(sock, peer)
        self._strangers[stranger] = None
        goes = self._gate.come(stranger, source, time.monotonic())
        self._give_way(goes)
        if goes is not stranger:
            self._loop.add_reader(sock.fileno(), self._spoken, stranger)

    def sweep(self, now: float, limit: float) -> None:
        """Hang up on those who have not proven themselves within `limit` seconds."""
        for stranger in self._gate.late(now, limit):
            self._complain("unproven in time", logging.WARNING, "%s has not proven itself in time", stranger.peer)
            self._close(stranger)

    def close(self) -> None:
        """Hang up on all strangers; they are told nothing."""
        for stranger in [*self._strangers, *self._leaving]:
            self._close(stranger)

    # ---- waiting -------------------------------------------------------------------------------------------

    def _spoken(self, stranger: Stranger) -> None:
        try:
            something = stranger.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            something = b""
        if not something:
            self._close(stranger)
            return
        self._loop.remove_reader(stranger.sock.fileno())
        self._gate.speak(stranger)
        self._ask()

    def _ask(self) -> None:
        """Have the next begin, if there is one, in a turn of the loop."""
        if not self._asked and self._gate.pressed:
            self._asked = True
            self._turns.ask(self._next)

    def _next(self) -> None:
        self._asked = False
        found = self._gate.next(time.monotonic())
        if found is None:
            if self._gate.pressed:
                self._asked = True
                self._loop.call_later(LOOK_AGAIN, self._turns.ask, self._next)
            return
        begins, goes = found
        self._give_way(goes)
        self._begin(begins)
        self._ask()

    def _give_way(self, stranger: Stranger | None) -> None:
        if stranger is not None:
            text = "%s gives way to another before it has proven itself"
            self._complain("gives way", logging.WARNING, text, stranger.peer)
            self._close(stranger)

    # ---- shaking hands -------------------------------------------------------------------------------------

    def _begin(self, stranger: Stranger) -> None:
        try:
            stranger.link = Link(stranger.sock, self._context(), peer=stranger.peer, limit=self._limit)
        except OSError as error:
            self._complain("went away", logging.WARNING, "%s went away: %s", stranger.peer, error)
            self._close(stranger)
        else:
            self._shake(stranger, stranger.link)

    def _shake(self, stranger: Stranger, link: Link) -> None:
        if stranger not in self._strangers:
            return  # it gave way, or was late, while it waited for its turn
        try:
            identity = self._identify(link) if link.handshake() else None
        except TrustError as error:
            self._complain("turned away", logging.WARNING, "turned away: %s", error)
            self._turn_away(stranger, link)
        except LinkError as error:
            self._complain("went away", logging.DEBUG, "%s", error)
            self._close(stranger)
        else:
            if identity is None:
                self._wait(stranger, link)
            else:
                self._gate.enter(stranger)
                del self._strangers[stranger]
                self._ask()
                self._admit(link, identity)

    def _wait(self, stranger: Stranger, link: Link) -> None:
        self._gate.owes(stranger, time.monotonic())
        self._loop.add_reader(link.fileno(), self._moved, stranger, link)
        if link.wants_write:
            self._loop.add_writer(link.fileno(), self._moved, stranger, link)

    def _moved(self, stranger: Stranger, link: Link) -> None:
        self._forget(link)
        self._gate.goes_on(stranger)
        self._turns.ask(partial(self._shake, stranger, link))

    # ---- leaving -------------------------------------------------------------------------------------------

    def _turn_away(self, stranger: Stranger, link: Link) -> None:
        """Hang up, but read on for a moment: closing at once would reset why, which the peer has not read yet."""
        self._gate.leave(stranger)
        self._strangers.pop(stranger, None)
        self._ask()
        if len(self._leaving) >= LEAVING_LIMIT:
            self._close(next(iter(self._leaving)))
        self._leaving[stranger] = None
        stranger.timer = self._loop.call_later(LINGER, self._close, stranger)
        self._loop.add_reader(link.fileno(), self._drain, stranger, link)
        link.hang_up()

    def _drain(self, stranger: Stranger, link: Link) -> None:
        if link.drain():
            self._close(stranger)

    def _forget(self, of: Link | socket.socket) -> None:
        self._loop.remove_reader(of.fileno())
        self._loop.remove_writer(of.fileno())

    def _close(self, stranger: Stranger) -> None:
        self._gate.leave(stranger)
        self._strangers.pop(stranger, None)
        self._leaving.pop(stranger, None)
        self._ask()
        if stranger.timer is not None:
            stranger.timer.cancel()
        self._forget(stranger.sock)
        stranger.sock.close()
