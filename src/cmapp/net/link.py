"""One TLS link over a non-blocking socket, for both shells: the manager's poll() and the server's event loop.

A link never waits: it is stepped when its socket can be read or written, and says by `wants_write` whether it
has to know of the latter. Everything that leaves in one step leaves in one write, because two small writes
cost a delayed acknowledgement. The invariant: no more than `limit` bytes wait to be sent.
"""

from __future__ import annotations

import os
import socket
import ssl

from cmapp.errors import LinkError
from cmapp.net.tls import explain

RECORD = 16 * 1024  # bytes: the largest TLS record
# A peer that is cut off without a word is noticed by its polls; these are the backstop, on both ends.
DEAF = 20  # seconds in which the other end's kernel has to confirm something, whatever its processes do
PROBE_AFTER, PROBE_EVERY, PROBES = 8, 4, 3  # seconds, seconds and unanswered probes: DEAF in all


class Link:
    """A TLS socket that never blocks; `peer` is what it is called in errors."""

    __slots__ = ("_limit", "_out", "peer", "tls", "wants_write")

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, *, peer: str, limit: int, guest: str | None = None
    ) -> None:
        """Take over the connected `sock`; a manager names the `guest` that the certificate must bear."""
        sock.settimeout(0)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            _set_up(sock)
        self.tls = context.wrap_socket(
            sock,
            server_side=guest is None,
            server_hostname=None if guest is None else guest.encode(),  # bytes spare us IDNA
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        self.peer = peer
        self.wants_write = False
        self._limit = limit
        self._out = bytearray()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.tls.fileno()

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is done. Raises TrustError or LinkError."""
        self.wants_write = False
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return False
        except OSError as error:
            raise explain(error, peer=self.peer) from None
        return True

    def read(self) -> bytes | None:
        """Return what came, b"" for nothing yet, None for an orderly end. Raises TrustError or LinkError."""
        try:
            data = self.tls.recv(RECORD)
            while data and self.tls.pending():
                data += self.tls.recv(RECORD)
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return b""
        except ssl.SSLZeroReturnError:
            return None
        except OSError as error:
            raise explain(error, peer=self.peer) from None
        return data or None

    @property
    def waiting(self) -> int:
        """How many bytes wait to be sent."""
        return len(self._out)

    def write(self, data: bytes) -> None:
        """Send `data` now, keep what the socket does not take. Raises LinkError when too much would wait."""
        if len(self._out) + len(data) > self._limit:
            raise LinkError(f"{self.peer} does not read what it is sent: {len(self._out)} bytes wait for it")
        self._out += data
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it. Raises TrustError or LinkError."""
        self.wants_write = False
        try:
            while self._out:
                del self._out[: self.tls.send(self._out)]
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            self.wants_write = True
        except OSError as error:
            raise explain(error, peer=self.peer) from None

    def hang_up(self) -> None:
        """Send our orderly end, as far as it goes without waiting; the peer's rest is to be drained."""
        for end in (self.tls.unwrap, self._shut_down):
            try:
                end()
            except (OSError, ValueError):
                pass  # the peer's end has not come yet, or the socket is gone

    def drain(self) -> bool:
        """Throw away what the peer still sends, and return whether it is over.

        Closing while something waits to be read would reset what the peer has not read yet.
        """
        try:
            return not os.read(self.tls.fileno(), 4 * RECORD)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close the socket."""
        self.tls.close()

    def _shut_down(self) -> None:
        socket.socket.shutdown(self.tls, socket.SHUT_WR)


def _set_up(sock: socket.socket) -> None:
    """Have the kernel send at once, and give up on a peer that is silent for DEAF seconds."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_KEEPIDLE, PROBE_AFTER),
        (socket.TCP_KEEPINTVL, PROBE_EVERY),
        (socket.TCP_KEEPCNT, PROBES),
        (socket.TCP_USER_TIMEOUT, DEAF * 1000),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
