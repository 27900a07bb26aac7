"""Who is here: strangers at the entrance, managers who are in, and the keys by which they are told apart.

The invariant: whoever is in has proven to be a host, is on the roll, and is let go as soon as it is silent, or slow,
for longer than it may be.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from cmapp.guest.complaints import Complaints
from cmapp.guest.connection import SEND_LIMIT, SILENT, Connection
from cmapp.guest.entrance import Entrance, Stranger
from cmapp.guest.gate import Gate, Roll
from cmapp.guest.turns import Turns
from cmapp.net.identity import Role, require_role
from cmapp.net.keyring import Keyring, Reminder
from cmapp.net.tls import peer_identity

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl

    from cmapp.guest.settings import Settings
    from cmapp.guest.supervisor import Supervisor
    from cmapp.net.identity import Identity
    from cmapp.net.link import Link

log = logging.getLogger(__name__)

WAITING_LIMIT = 2048  # strangers who wait until they may begin their handshake
WAITING_SHARE = 8  # the part of all descriptors that they may take at most
LATER = 0.002  # seconds, in one turn of the loop, for managers who want much at once
PARTING_LIMIT = 64  # managers too many who are told so, and given time to read it, at once


def keys_of(settings: Settings) -> Keyring:
    """Load the keys; raises SettingsError if they cannot serve."""
    return Keyring(settings.keys, Role.GUEST, allow_tls12=settings.allow_tls12)


class Reception:
    """The connections of the server, from their first byte on."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settings: Settings, keys: Keyring, supervisor: Supervisor, most: int
    ) -> None:
        """Let managers in to `supervisor`; there are `most` descriptors."""
        self.connections: dict[Connection, None] = {}
        self._loop = loop
        self._settings = settings
        self._keys = keys
        self._reminder = Reminder(keys)
        self._supervisor = supervisor
        self._complaints = Complaints()
        self._later = Turns(loop, LATER)
        self._gate: Gate[Stranger] = Gate(most=1, each=1, waiting=min(WAITING_LIMIT, max(1, most // WAITING_SHARE)))
        self._roll: Roll[Connection] = Roll(most=1, each=1)
        self._parting: dict[Connection, None] = {}
        self._entrance = Entrance(
            loop,
            self._gate,
            self._complaints,
            context=self._context,
            identify=self._identify,
            admit=self._admit,
            limit=SEND_LIMIT,
        )
        self.use(settings, keys)

    def use(self, settings: Settings, keys: Keyring) -> None:
        """Go by these settings and keys from here on; who is in stays."""
        self._settings, self._keys, self._reminder = settings, keys, Reminder(keys)
        self._gate.most, self._gate.each = settings.max_handshakes, settings.max_handshakes_per_address
        self._roll.most, self._roll.each = settings.max_connections, settings.max_connections_per_manager

    def let_in(self, sock: socket.socket, peer: str, source: str) -> None:
        """Take over a connection that was just made."""
        self._entrance.let_in(sock, peer, source)

    def sweep(self, now: float) -> None:
        """Look who is late, once a second."""
        self._entrance.sweep(now, self._settings.handshake_timeout)
        for connection in list(self.connections):
            if reason := connection.trouble(now):
                silent = "has been silent for too long: it is taken for lost"
                words = silent if reason == SILENT else f"is hung up on: {reason}"
                self._complaints.log(f"{connection.manager} let go", logging.WARNING, "%s %s", connection, words)
                connection.dismiss(reason)
        self._complaints.sum_up()
        for words in self._reminder.due(now, time.time()):
            log.warning("%s", words)

    def excuse(self, now: float) -> None:
        """Judge nobody by the time until now: this machine, or this server, stood still."""
        for connection in self.connections:
            connection.excuse(now)

    def turn_strangers_away(self) -> None:
        """Hang up on who has not proven itself; it is told nothing."""
        self._entrance.close()
        self._complaints.sum_up(at_last=True)

    def _context(self) -> ssl.SSLContext:
        return self._keys.context()

    def _identify(self, link: Link) -> Identity:
        identity = peer_identity(link.tls)
        require_role(identity, Role.HOST)
        return identity

    def _admit(self, link: Link, identity: Identity) -> None:
        connection = Connection(
            self._loop, link, identity.name, self._supervisor, self._later, self._complaints, closed=self._closed
        )
        self.connections[connection] = None
        problem = self._roll.enter(connection, identity.name)
        if problem:
            self._complaints.log("too many", logging.WARNING, "%s turned away: %s", connection, problem)
            if len(self._parting) >= PARTING_LIMIT:
                next(iter(self._parting)).close()
            self._parting[connection] = None
            connection.dismiss(problem)

    def _closed(self, connection: Connection) -> None:
        self._roll.leave(connection)
        self._parting.pop(connection, None)
        self.connections.pop(connection, None)
