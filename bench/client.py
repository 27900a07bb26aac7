"""A manager reduced to its connection, of which the bench can hold thousands: hello, launch and poll."""

from __future__ import annotations

import json
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

from measure import PATIENCE, BenchError
from stage import ADDRESS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def trust(keys: Path) -> ssl.SSLContext:
    """Return the context of the bench's host key."""
    folder = keys / "host/bench"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.load_verify_locations(folder / "ca.pem")
    context.set_alpn_protocols(["cmapp/1"])
    return context


class Link:
    """A connection that has said hello."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        raw = socket.create_connection((ADDRESS, port), PATIENCE)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls = context.wrap_socket(raw, server_hostname=ADDRESS)
        self._id = 0
        self.ask("hello", "welcome", versions=[1], software="bench")

    def launch(self, argv: Sequence[str]) -> None:
        """Have a command launched under a name of its own."""
        unique = os.urandom(6).hex()
        run_id = f"00000000-0000-4000-8000-{unique}"
        self.ask("launch", "launched", name=f"bench-{unique}", run_id=run_id, argv=argv)

    def say(self, word: str, **keys: Any) -> None:
        """Send a request in one write."""
        self._id += 1
        line = json.dumps({"type": word, "id": self._id, **keys}, separators=(",", ":"))
        self._tls.sendall(line.encode() + b"\n")

    def hear(self, word: str) -> None:
        """Take the reply, which must be of that type."""
        data = self._tls.recv(65536)
        while data and not data.endswith(b"\n"):
            data += self._tls.recv(65536)
        if not data.startswith(b'{"type":"%s"' % word.encode()):
            raise BenchError(f"a reply that is no {word}: {data[:200]!r}")

    def ask(self, word: str, reply: str, **keys: Any) -> None:
        """Send a request and take its reply."""
        self.say(word, **keys)
        self.hear(reply)

    def close(self) -> None:
        """Hang up."""
        self._tls.close()
