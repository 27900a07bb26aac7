"""A private key behind a passphrase: PKCS#8 by PBES2 (RFC 8018), with a derivation that costs who guesses.

Responsible for locking a key. The invariant: every OpenSSL and every `cryptography` since 38 can unlock it. The
library's own locking takes 2,048 rounds of PBKDF2, which is a minute's work for a machine that guesses.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64encode
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cmapp.net.der import INTEGER, NULL, OCTETS, SEQUENCE, element

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

ROUNDS = 600_000  # of PBKDF2 with HMAC-SHA-256, what OWASP asks for; a third of a second here

_SALT_BYTES, _KEY_BYTES, _BLOCK_BYTES = 16, 32, 16
_LINE = 64  # characters of a line in PEM
# Object identifiers, encoded.
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("06082a864886f70d0209")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")


def locked(key: PrivateKeyTypes, passphrase: bytes) -> bytes:
    """Return the key as an ENCRYPTED PRIVATE KEY in PEM, to be opened by `passphrase`."""
    plain = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    salt, start = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_BLOCK_BYTES)
    cipher = Cipher(
        algorithms.AES(hashlib.pbkdf2_hmac("sha256", passphrase, salt, ROUNDS, _KEY_BYTES)), modes.CBC(start)
    ).encryptor()
    padder = padding.PKCS7(8 * _BLOCK_BYTES).padder()
    hidden = cipher.update(padder.update(plain) + padder.finalize()) + cipher.finalize()
    rounds = element(INTEGER, ROUNDS.to_bytes(ROUNDS.bit_length() // 8 + 1, "big"))
    mixer = element(SEQUENCE, _HMAC_SHA256, element(NULL))
    derivation = element(SEQUENCE, _PBKDF2, element(SEQUENCE, element(OCTETS, salt), rounds, mixer))
    encryption = element(SEQUENCE, _AES_256_CBC, element(OCTETS, start))
    method = element(SEQUENCE, _PBES2, element(SEQUENCE, derivation, encryption))
    text = b64encode(element(SEQUENCE, method, element(OCTETS, hidden)))
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return b"\n".join((b"-----BEGIN ENCRYPTED PRIVATE KEY-----", *lines, b"-----END ENCRYPTED PRIVATE KEY-----", b""))
