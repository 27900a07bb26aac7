"""PEM: texts that hold certificates, requests and revocation lists, several of a kind one after the other.

Responsible for the way between such a text and objects. The invariant: whatever the bytes, the answer is objects of
which every field can be read, or a ValueError; of several nothing is dropped in silence.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from cmapp.keys.description import begins, ends, list_begins, list_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CERTIFICATE, REQUEST, LIST = "CERTIFICATE", "CERTIFICATE REQUEST", "X509 CRL"

Thing = TypeVar("Thing", x509.Certificate, x509.CertificateSigningRequest, x509.CertificateRevocationList)

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
# What the library raises of fields that break the rules, beside ValueError.
_BROKEN = (
    InternalError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class MalformedError(ValueError):
    """What is between the lines of a block breaks the rules; `str` says which."""


def kinds(text: bytes) -> list[str]:
    """Return what stands in a text, in order, as the labels say."""
    return [label.decode() for label in _BLOCK.findall(text)]


def certificates(text: bytes) -> list[x509.Certificate]:
    """Return the certificates in a text, in order; raises MalformedError."""

    # Before version 39 cryptography cannot load several at once.
    def look(one: x509.Certificate) -> object:
        return one.issuer, one.subject, one.serial_number, one.extensions, begins(one), ends(one)

    return [_read(x509.load_pem_x509_certificate, look, block) for block in _blocks(text, CERTIFICATE)]


def requests(text: bytes) -> list[x509.CertificateSigningRequest]:
    """Return the signing requests in a text, which JDK and old OpenSSL label as new ones; raises MalformedError."""

    def look(one: x509.CertificateSigningRequest) -> object:
        return one.subject, one.extensions

    text = text.replace(b" NEW CERTIFICATE REQUEST-", b" CERTIFICATE REQUEST-")
    return [_read(x509.load_pem_x509_csr, look, block) for block in _blocks(text, REQUEST)]


def lists(text: bytes) -> list[x509.CertificateRevocationList]:
    """Return the revocation lists in a text, in order; raises MalformedError."""

    def look(one: x509.CertificateRevocationList) -> object:
        entries = [(entry.serial_number, entry.extensions) for entry in one]
        return one.issuer, one.extensions, list_begins(one), list_ends(one), entries

    return [_read(x509.load_pem_x509_crl, look, block) for block in _blocks(text, LIST)]


def written(
    things: Iterable[x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList],
) -> bytes:
    """Return the text that holds all of `things`."""
    return b"".join(thing.public_bytes(serialization.Encoding.PEM) for thing in things)


def _read(load: Callable[[bytes], Thing], look: Callable[[Thing], object], block: bytes) -> Thing:
    """Load a block, and look at what the library would read only later, where nobody could say whose fault it is."""
    try:
        thing = load(block)
        look(thing)
    except (ValueError, *_BROKEN) as error:
        raise MalformedError(str(error).partition("\n")[0] or type(error).__name__) from None
    return thing


def _blocks(text: bytes, label: str) -> list[bytes]:
    return [found[0] for found in _BLOCK.finditer(text) if found[1] == label.encode()]
