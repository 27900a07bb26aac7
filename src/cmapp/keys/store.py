"""What a Java keystore holds, of whichever format: private keys that are still locked, and trusted certificates.

Responsible for the shape that both formats are read into. The invariant: bytes from a file stand here only after
their lengths were checked, and a certificate is one that could be parsed.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from cmapp.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

FILE_LIMIT = 4194304  # bytes of a keystore; Java's own list of all public authorities has 200 thousand
ENTRY_LIMIT = 1000  # keys, or trusted certificates


class UnreadableError(SettingsError):
    """A keystore cannot be read; the text is the end of a sentence that begins with its path."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A private key; `certificates` are those that may certify it, and their issuers, in any order.

    `unlock` takes the key's password, and raises UnreadableError.
    """

    alias: str
    certificates: tuple[x509.Certificate, ...]
    unlock: Callable[[str], PrivateKeyTypes]


@dataclass(frozen=True, slots=True)
class Trusted:
    """A certificate that stands in a keystore by itself, to be trusted."""

    alias: str
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Store:
    """All that a keystore holds."""

    keys: tuple[KeyEntry, ...]
    trusted: tuple[Trusted, ...]


def certificate_of(der: bytes, alias: str) -> x509.Certificate:
    """Return the certificate of an entry; raises UnreadableError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what may not be read some day: it is judged by what can be today
            certificate = x509.load_der_x509_certificate(der)
            certificate.public_key()
            list(certificate.extensions)
            certificate.subject.rfc4514_string()
            certificate.issuer.rfc4514_string()
    except Exception:  # noqa: BLE001 - what it raises for a hostile certificate differs by version
        raise UnreadableError(
            f"holds a certificate that is malformed, or of an unknown kind such as DSA: keytool -delete -alias {alias}"
        ) from None
    return certificate
