"""JKS, the keystore format of Java before PKCS#12, in version 2 (and 1, to read).

Big-endian numbers and counted strings: a head, the entries, and the SHA-1 of the store's password, two words and
all bytes before. A private key is hidden under a stream of SHA-1 of its own password; that keeps out whoever has
no password, and not for long: it is a format to come from, and for old Java to go to. The invariant: nothing is
believed before the digest was right, and no length is used before it was compared with what is left.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from functools import partial
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization

from cmapp.keys.store import ENTRY_LIMIT, KeyEntry, Store, Trusted, UnreadableError, certificate_of
from cmapp.net.der import NULL, OBJECT, OCTETS, SEQUENCE, element, elements, inside

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MAGIC = bytes.fromhex("FEEDFEED")
CHAIN_LIMIT = 20  # certificates of one key

_DIGEST = 20  # bytes of a SHA-1
_KEY, _TRUSTED = 1, 2  # kinds of entries
_WHITENER = b"Mighty Aphrodite"  # which the format wants
_PROTECTION = bytes.fromhex("2B060104012A02110101")  # 1.3.6.1.4.1.42.2.17.1.1, the format's own way with keys
_X509 = "X.509"
_ALTERED = "cannot be opened: the store password is wrong, or the file was altered or cut"
_CUT = "is no whole JKS keystore: copy it again"


def read(data: bytes, password: str) -> Store:
    """Return what is in a keystore or truststore; raises UnreadableError. Keys stay locked."""
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if len(data) < len(MAGIC) + _DIGEST or not data.startswith(MAGIC):
        raise UnreadableError(_CUT)
    if not hmac.compare_digest(digest, _digest(password, body)):
        raise UnreadableError(_ALTERED)
    reader = _Reader(body[len(MAGIC) :])
    if (version := reader.number(4)) not in {1, 2}:
        raise UnreadableError(f"is a JKS keystore of version {version}, which is not known")
    keys, trusted = [], []
    for _ in range(reader.count(ENTRY_LIMIT, "entries")):
        kind, alias, _made = reader.number(4), reader.text(), reader.number(8)
        if kind == _KEY:
            sealed = reader.blob()
            chain = [reader.certificate(version, alias) for _ in range(reader.count(CHAIN_LIMIT, "certificates"))]
            keys.append(KeyEntry(alias, tuple(chain), partial(_opened, sealed)))
        elif kind == _TRUSTED:
            trusted.append(Trusted(alias, reader.certificate(version, alias)))
        else:
            raise UnreadableError(f"holds an entry of the kind {kind}, which is not known")
    reader.end()
    return Store(tuple(keys), tuple(trusted))


def write(
    password: str,
    *,
    now: float,
    key: tuple[str, PrivateKeyTypes, Iterable[x509.Certificate], str] | None = None,
    trusted: Iterable[tuple[str, x509.Certificate]] = (),
) -> bytes:
    """Return a keystore made at `now`, with one key (alias, key, chain, its own password), or with trusted ones."""
    made, entries = struct.pack(">Q", int(now * 1000)), []
    if key is not None:
        alias, private, chain, own_password = key
        plain = private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        sealed, links = _sealed(plain, own_password), [_certificate(link) for link in chain]
        head = struct.pack(">I", _KEY) + _text(alias) + made
        entries.append(head + _blob(sealed) + struct.pack(">I", len(links)) + b"".join(links))
    for alias, certificate in trusted:
        entries.append(struct.pack(">I", _TRUSTED) + _text(alias) + made + _certificate(certificate))
    body = MAGIC + struct.pack(">II", 2, len(entries)) + b"".join(entries)
    return body + _digest(password, body)


class _Reader:
    """Takes what a keystore says, piece by piece, and never more than there is."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size))

    def count(self, most: int, what: str) -> int:
        if (count := self.number(4)) > most:
            raise UnreadableError(f"says that it holds {count} {what}, and more than {most} are not read")
        return count

    def blob(self) -> bytes:
        return self._take(self.number(4))

    def text(self) -> str:
        return self._take(self.number(2)).decode("utf-8", "replace")

    def certificate(self, version: int, alias: str) -> x509.Certificate:
        kind = self.text() if version > 1 else _X509
        if kind != _X509:
            raise UnreadableError(f"holds a certificate of the kind {kind[:20]!r} as {alias}: only {_X509} is read")
        return certificate_of(self.blob(), alias)

    def end(self) -> None:
        if self._at != len(self._data):
            raise UnreadableError(_CUT)

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise UnreadableError(_CUT)
        self._at += size
        return self._data[self._at - size : self._at]


def _opened(sealed: bytes, password: str) -> PrivateKeyTypes:
    try:
        (_, algorithm), (_, hidden) = inside(sealed, SEQUENCE)
        known = elements(algorithm)[0] == (OBJECT, _PROTECTION)
    except (ValueError, IndexError):
        raise UnreadableError(_CUT) from None
    if not known:
        raise UnreadableError("hides its key in a way that is not JKS's: convert it with keytool -importkeystore")
    plain = _whitened(hidden[_DIGEST:-_DIGEST], password, hidden[:_DIGEST])
    if not hmac.compare_digest(hidden[-_DIGEST:], _sha1(_wide(password) + plain)):
        raise UnreadableError("holds a key that has another password: give that with --keypass-file")
    try:
        return serialization.load_der_private_key(plain, None)
    except Exception:  # noqa: BLE001 - what it raises for a hostile key differs by version
        raise UnreadableError("holds a private key that cannot be read: make one with -keyalg RSA or EC") from None


def _sealed(plain: bytes, password: str) -> bytes:
    salt = os.urandom(_DIGEST)
    hidden = salt + _whitened(plain, password, salt) + _sha1(_wide(password) + plain)
    algorithm = element(SEQUENCE, element(OBJECT, _PROTECTION), element(NULL))
    return element(SEQUENCE, algorithm, element(OCTETS, hidden))


def _whitened(body: bytes, password: str, salt: bytes) -> bytes:
    """Return `body` under the stream of a password; twice is back again."""
    secret, block, blocks = _wide(password), salt, []
    for _ in range(0, len(body), _DIGEST):
        block = _sha1(secret + block)
        blocks.append(block)
    return bytes(left ^ right for left, right in zip(body, b"".join(blocks), strict=False))


def _digest(password: str, body: bytes) -> bytes:
    return _sha1(_wide(password) + _WHITENER + body)


def _sha1(data: bytes) -> bytes:
    """Return what the format wants; that it is safe is not said."""
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _wide(password: str) -> bytes:
    return password.encode("utf-16-be")


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _blob(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _certificate(certificate: x509.Certificate) -> bytes:
    return _text(_X509) + _blob(certificate.public_bytes(serialization.Encoding.DER))
