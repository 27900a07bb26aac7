"""What whoever started cmappmgr is told by sd_notify(3): that the application serves, how it is, that it ends.

Responsible for the socket of $NOTIFY_SOCKET alone. The invariant: a socket that is gone, full or no socket at all
neither ends the manager nor holds it up; without one, nothing is done.
"""

from __future__ import annotations

import socket

ABSTRACT = "@"  # before a name of no file system
LONGEST = 1024  # bytes of a status


class Notice:
    """Whom to tell: `address` is a path, an abstract name behind an @, or empty for nobody."""

    __slots__ = ("_address",)

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith(ABSTRACT) else address

    def say(self, *assignments: str) -> None:
        """Say such as `READY=1`, all in one datagram."""
        if not self._address:
            return
        data = "\n".join(text.replace("\n", " ") for text in assignments).encode(errors="replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(data[:LONGEST], self._address)
        except (OSError, ValueError):  # a path that is too long is no path
            pass
