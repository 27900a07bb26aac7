"""Keys and certificates for the targets, made once a process, and certificates that nobody would issue.

They are made by `cryptography` alone, so that what is fuzzed does not also make what it is fuzzed with. The invariant:
what `signed_again` returns bears a right signature of our authority, whatever is in it.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

MEMORY = "/dev/shm"  # noqa: S108 - made by tempfile, below it
HOST, GUEST = "n1", "vm1"
_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER
_PURPOSES = {"host": ExtendedKeyUsageOID.CLIENT_AUTH, "guest": ExtendedKeyUsageOID.SERVER_AUTH}


class Papers(NamedTuple):
    """An authority, and the certificate and key of a host and of a guest."""

    authority: x509.Certificate
    authority_key: ec.EllipticCurvePrivateKey
    leaves: dict[str, x509.Certificate]
    keys: dict[str, ec.EllipticCurvePrivateKey]
    revocations: x509.CertificateRevocationList


@functools.cache
def papers() -> Papers:
    """Return the papers of this process."""
    now = datetime.now(UTC)
    own, keys = ec.generate_private_key(ec.SECP256R1()), {}
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fuzzed authority")])
    authority = (
        _begun(name, name, own.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(own, hashes.SHA256())
    )
    leaves = {}
    for role, who in (("host", HOST), ("guest", GUEST)):
        keys[role] = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)])
        names = [x509.UniformResourceIdentifier(f"cmapp://{role}/{who}"), x509.DNSName(who)]
        leaves[role] = (
            _begun(subject, name, keys[role].public_key(), now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([_PURPOSES[role]]), critical=False)
            .sign(own, hashes.SHA256())
        )
    entry = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(now).build()
    revoked = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(now - timedelta(days=1))
    revoked = revoked.next_update(now + timedelta(days=9)).add_revoked_certificate(entry)
    return Papers(authority, own, leaves, keys, revoked.sign(own, hashes.SHA256()))


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    begun = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    begun = begun.serial_number(x509.random_serial_number())
    return begun.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=900))


@functools.cache
def scratch() -> Path:
    """Return a folder of this process, in memory where that can be, removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="cmapp-fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def key_folder(role: str) -> Path:
    """Return a key folder for "host" or "guest"."""
    made, folder = papers(), scratch() / f"keys-{role}"
    folder.mkdir(0o700)
    (folder / "cert.pem").write_bytes(made.leaves[role].public_bytes(_PEM))
    (folder / "ca.pem").write_bytes(made.authority.public_bytes(_PEM))
    (folder / "key.pem").touch(0o600)
    (folder / "key.pem").write_bytes(key_pem(role))
    return folder


def key_pem(role: str) -> bytes:
    """Return the private key of a role, as a file holds it."""
    return papers().keys[role].private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def leaf(role: str) -> bytes:
    """Return the certificate of a role, as DER."""
    return papers().leaves[role].public_bytes(_DER)


def authority() -> bytes:
    """Return the authority's certificate, as DER."""
    return papers().authority.public_bytes(_DER)


def revocations() -> bytes:
    """Return the authority's revocation list, as DER."""
    return papers().revocations.public_bytes(_DER)


def signed_again(role: str, changes: list[tuple[bytes, bytes]]) -> bytes:
    """Return the certificate of a role with bytes changed in what is signed, and signed as if that were right."""
    told = papers().leaves[role]
    signed = told.tbs_certificate_bytes
    for old, new in changes:
        signed = signed.replace(old, new)
    signature = papers().authority_key.sign(signed, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300A06082A8648CE3D040302")  # ecdsa-with-SHA256
    return wrapped(0x30, signed + algorithm + wrapped(0x03, b"\0" + signature))


def wrapped(tag: int, content: bytes) -> bytes:
    """Return an element of DER."""
    size = len(content)
    if size < 0x80:  # noqa: PLR2004 - a length of one byte
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
