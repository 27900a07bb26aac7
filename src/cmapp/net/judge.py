"""Whether OpenSSL trusts a chain of certificates whose key is not ours, asked outside of any connection.

Python lets OpenSSL verify a chain in a handshake only. So one is begun in memory, up to the message in which TLS 1.2
shows the peer's certificates in the clear: a server verifies them at once, before it asks for the proof that their
key is there. The invariant: a chain is accepted only if OpenSSL has verified it and then waits for that proof.
"""

from __future__ import annotations

import ssl

_RECORD = 16 * 1024  # bytes of one record of TLS, at most
_HANDSHAKE, _CERTIFICATE = b"\x16\x03\x03", b"\x0b"


class Judge:
    """Verifies chains as a server with `context` would; the context is the judge's own from here on."""

    __slots__ = ("_calling", "_serving")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._serving = context
        self._serving.minimum_version = self._serving.maximum_version = ssl.TLSVersion.TLSv1_2
        self._calling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._calling.check_hostname = False

    def require(self, chain: list[bytes]) -> None:
        """Raise SSLError, mostly SSLCertVerificationError, unless the chain is good, a peer's certificate first."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        calling = self._calling.wrap_bio(ssl.MemoryBIO(), to_server)
        serving = self._serving.wrap_bio(to_server, to_client, server_side=True)
        _go_on(calling)
        _go_on(serving)
        to_server.write(_shown(chain))
        _go_on(serving)
        if to_server.pending:
            raise ssl.SSLError("the certificates were not looked at")


def _go_on(end: ssl.SSLObject) -> None:
    """Take a handshake as far as it gets; one that ends was none of ours."""
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return
    raise ssl.SSLError("the handshake ended too soon")


def _shown(chain: list[bytes]) -> bytes:
    """Return the records in which a client shows its certificates."""
    message = _CERTIFICATE + _counted(_counted(b"".join(map(_counted, chain))))
    parts = [message[at : at + _RECORD] for at in range(0, len(message), _RECORD)]
    return b"".join(_HANDSHAKE + len(part).to_bytes(2, "big") + part for part in parts)


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data
