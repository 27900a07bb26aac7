"""TLS by OpenSSL's own library, for what Python's `ssl` cannot say: key updates and renegotiations by the thousand.

The connection's bytes go through memory, so that a flood can be made ready first and be sent at the speed of the
network. The invariant: a peer that answers with an alert, or hangs up, ends it with OSError, never the process.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from pathlib import Path
    from typing import Self

PEM = 1  # SSL_FILETYPE_PEM
WANTS_MORE = 2  # SSL_ERROR_WANT_READ
SET_MAX_VERSION = 124  # SSL_CTRL_SET_MAX_PROTO_VERSION
TLS_1_2 = 0x0303
NOT_REQUESTED, REQUESTED = 0, 1  # SSL_KEY_UPDATE_*: whether the peer has to answer by one of its own
ALPN = b"\x07cmapp/1"
CHUNK = 64 * 1024


def _library() -> Any:
    name = ctypes.util.find_library("ssl")
    if name is None:
        raise OSError("there is no libssl here (apt install openssl)")
    library = ctypes.CDLL(name)
    pointers = "TLS_client_method SSL_CTX_new SSL_new BIO_new BIO_s_mem"
    for word in pointers.split():
        getattr(library, word).restype = ctypes.c_void_p
    return library


class RawTls:
    """A client's connection that shows the certificate of the folder `keys`; a context that closes it."""

    def __init__(self, sock: socket.socket, keys: Path, *, old: bool = False) -> None:
        """Prepare it over the connected `sock`; `old` is TLS 1.2."""
        self._sock = sock
        self._ssl = ssl = _library()
        self._context = ctypes.c_void_p(ssl.SSL_CTX_new(ctypes.c_void_p(ssl.TLS_client_method())))
        certificate, key = str(keys / "cert.pem").encode(), str(keys / "key.pem").encode()
        if ssl.SSL_CTX_use_certificate_chain_file(self._context, certificate) != 1:
            raise OSError(f"{keys} cannot be used")
        ssl.SSL_CTX_use_PrivateKey_file(self._context, key, PEM)
        ssl.SSL_CTX_set_alpn_protos(self._context, ALPN, len(ALPN))
        if old:
            ssl.SSL_CTX_ctrl(self._context, SET_MAX_VERSION, ctypes.c_long(TLS_1_2), None)
        self._handle = ctypes.c_void_p(ssl.SSL_new(self._context))
        self._incoming, self._outgoing = (
            ctypes.c_void_p(ssl.BIO_new(ctypes.c_void_p(ssl.BIO_s_mem()))) for _ in range(2)
        )
        ssl.SSL_set_bio(self._handle, self._incoming, self._outgoing)
        ssl.SSL_set_connect_state(self._handle)

    def __enter__(self) -> Self:
        """Shake hands."""
        while (done := self._ssl.SSL_do_handshake(self._handle)) != 1:
            if self._ssl.SSL_get_error(self._handle, done) != WANTS_MORE:
                raise ConnectionAbortedError("the handshake failed")
            self._sock.sendall(self.taken())
            self._take_in()
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self._ssl.SSL_free(self._handle)
        self._ssl.SSL_CTX_free(self._context)
        self._sock.close()

    def say(self, data: bytes) -> None:
        """Make ready to send `data`."""
        self._ssl.SSL_write(self._handle, data, len(data))

    def update_keys(self, count: int, *, answered: bool = False) -> None:
        """Make ready to send that many key updates, each of which wants an answer if `answered`."""
        for _ in range(count):
            self._ssl.SSL_key_update(self._handle, REQUESTED if answered else NOT_REQUESTED)
            self._ssl.SSL_do_handshake(self._handle)

    def renegotiate(self) -> None:
        """Make ready to ask for a new handshake on the connection that is there (TLS 1.2)."""
        self._ssl.SSL_renegotiate(self._handle)
        self._ssl.SSL_do_handshake(self._handle)

    def taken(self) -> bytes:
        """Return what is ready to be sent, which is then the caller's to send."""
        taken = bytearray()
        buffer = ctypes.create_string_buffer(CHUNK)
        while (count := self._ssl.BIO_read(self._outgoing, buffer, CHUNK)) > 0:
            taken += buffer.raw[:count]
        return bytes(taken)

    def flush(self) -> None:
        """Send what is ready."""
        self._sock.sendall(self.taken())

    def hear(self) -> bytes:
        """Return what the peer said next; raises ConnectionAbortedError once it has said its last."""
        buffer = ctypes.create_string_buffer(CHUNK)
        while (count := self._ssl.SSL_read(self._handle, buffer, CHUNK)) <= 0:
            if self._ssl.SSL_get_error(self._handle, count) != WANTS_MORE:
                raise ConnectionAbortedError("the connection was ended by an alert")
            with suppress(BrokenPipeError):
                self.flush()
            self._take_in()
        return buffer.raw[:count]

    def _take_in(self) -> None:
        data = self._sock.recv(CHUNK)
        if not data:
            raise ConnectionAbortedError("the connection was closed")
        self._ssl.BIO_write(self._incoming, data, len(data))
