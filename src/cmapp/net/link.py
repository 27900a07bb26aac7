"""One TLS link over a non-blocking socket, for both shells: the manager's poll() and the server's event loop.

A link never waits: it is stepped when its socket can be read or written, and says by `wants_write` whether it
has to know of the latter. Everything that leaves in one step leaves in one write, because two small writes
cost a delayed acknowledgement. OpenSSL reads from memory, not from the socket: by itself it would take what a peer
sends for as long as it comes, and a handshake in a hundred thousand pieces, or as many new keys, would hold up
everybody else. The invariants: a step takes no more than TURN bytes from the socket; no more than `limit` bytes wait
to be sent; a peer that sends and sends, and says nothing, is told from one that speaks.
"""

from __future__ import annotations

import os
import socket
import ssl

from cmapp.errors import LinkError, RemoteProtocolError
from cmapp.net.refusals import explain

TURN = 16 * 1024  # bytes that are taken from the socket at once
PROVING_TURN = 4 * 1024  # the same of a peer that has yet to prove itself: a whole handshake, mostly
HANDSHAKE_LIMIT = 64 * 1024  # bytes of a handshake: a chain of certificates with large keys has 12 KiB
BARREN_LIMIT = 64 * 1024  # bytes in a row of which nothing comes: TLS's own messages are small and few
# A peer that is cut off without a word is noticed by its polls; these are the backstop, on both ends.
DEAF = 20  # seconds in which the other end's kernel has to confirm something, whatever its processes do
PROBE_AFTER, PROBE_EVERY, PROBES = 8, 4, 3  # seconds, seconds and unanswered probes: DEAF in all


class Link:
    """A TLS connection that never blocks; `peer` is what it is called in errors."""

    __slots__ = ("_barren", "_coming", "_going", "_limit", "_out", "peer", "sock", "tls", "wants_write")

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, *, peer: str, limit: int, guest: str | None = None
    ) -> None:
        """Take over the connected `sock`; a manager names the `guest` that the certificate must bear."""
        sock.settimeout(0)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            _set_up(sock)
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._coming,
            self._going,
            server_side=guest is None,
            server_hostname=None if guest is None else guest.encode(),  # bytes spare us IDNA
        )
        self.sock = sock
        self.peer = peer
        self.wants_write = False
        self._limit = limit
        self._out = bytearray()
        self._barren = 0

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.sock.fileno()

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is done. Raises TrustError or LinkError.

        When it is, `read` has to be called once: what came with its end does not wait in the socket any more.
        """
        try:
            self._receive(PROVING_TURN)
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            done = False
            if self._barren > HANDSHAKE_LIMIT:
                raise LinkError(f"{self.peer} makes no end of its handshake: {self._barren} bytes so far") from None
        except OSError as error:
            self._try_to_send()  # the alert that tells the peer why
            raise explain(error, peer=self.peer) from None
        else:
            done = True
            self._barren = 0
        self.flush()
        return done

    def read(self) -> bytes | None:
        """Return what came, b"" for nothing yet, None for an orderly end.

        Raises TrustError, LinkError, or RemoteProtocolError for a peer that only keeps us busy.
        """
        data = b""
        try:
            self._receive(TURN)
            while piece := self.tls.read(TURN):
                data += piece
        except ssl.SSLWantReadError:
            if not data and self._barren > BARREN_LIMIT:
                text = f"sends and sends, but says nothing: {self._barren} bytes of TLS's own messages"
                raise RemoteProtocolError(f"{self.peer} {text}") from None
        except OSError as error:
            self._try_to_send()
            raise explain(error, peer=self.peer) from None
        else:
            return data or None  # an orderly end, which stays one
        if data:
            self._barren = 0
        if self._going.pending:  # an answer of TLS itself
            self.flush()
        return data

    @property
    def waiting(self) -> int:
        """How many bytes wait to be sent."""
        return len(self._out)

    def write(self, data: bytes) -> None:
        """Send `data` now, keep what the socket does not take. Raises LinkError when too much would wait."""
        if len(self._out) + len(data) > self._limit:
            raise LinkError(f"{self.peer} does not read what it is sent: {len(self._out)} bytes wait for it")
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self.tls.write(rest) :]
        except OSError as error:
            raise explain(error, peer=self.peer) from None
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it. Raises LinkError."""
        try:
            self._send()
        except OSError as error:
            raise explain(error, peer=self.peer) from None
        if len(self._out) > 2 * self._limit:  # what TLS itself answers is not limited by `write`
            raise LinkError(f"{self.peer} does not read what it is sent: {len(self._out)} bytes wait for it")

    def hang_up(self) -> None:
        """Send our orderly end, as far as it goes without waiting; the peer's rest is to be drained."""
        for end in (self.tls.unwrap, self._send, self._shut_down):
            try:
                end()
            except (OSError, ValueError):
                pass  # the peer's end has not come yet, or the socket is gone

    def drain(self) -> bool:
        """Throw away what the peer still sends, and return whether it is over.

        Closing while something waits to be read would reset what the peer has not read yet.
        """
        try:
            return not os.read(self.sock.fileno(), 4 * TURN)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def _receive(self, most: int) -> None:
        """Take what has come, no more than `most` bytes; raises OSError."""
        try:
            data = self.sock.recv(most)
        except BlockingIOError:
            return
        if not data:
            self._coming.write_eof()
            return
        self._barren += len(data)
        self._coming.write(data)

    def _send(self) -> None:
        """Send what waits, as far as the socket takes it; raises OSError."""
        self.wants_write = False
        if self._going.pending:
            self._out += self._going.read()
        try:
            while self._out:
                del self._out[: self.sock.send(self._out)]
        except BlockingIOError:
            self.wants_write = True

    def _try_to_send(self) -> None:
        try:
            self._send()
        except OSError:
            pass  # why the peer is refused is told, its answer does not matter any more

    def _shut_down(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)


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
