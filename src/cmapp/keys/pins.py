"""Pinned certificates: a peer known by exactly the certificate that it shows, and by nothing else.

Responsible for which certificates may be pinned. The invariant: what is pinned vouches for itself alone: it could
not have issued another, in no reading of X.509.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cmapp.errors import SettingsError
from cmapp.keys.description import begins, ends, identity_of, is_authority
from cmapp.keys.strength import weakness
from cmapp.net.identity import Role

if TYPE_CHECKING:
    from datetime import datetime

    from cmapp.net.identity import Identity

_PURPOSES = {
    Role.HOST: (ExtendedKeyUsageOID.CLIENT_AUTH, "clientAuth"),
    Role.GUEST: (ExtendedKeyUsageOID.SERVER_AUTH, "serverAuth"),
}
_NETSCAPE_TYPE = x509.ObjectIdentifier("2.16.840.1.113730.1.1")
_NETSCAPE_AUTHORITY = 0b111  # the bits that make OpenSSL take the bearer for an authority
_AGAIN = "make one with 'openssl req -x509 -addext basicConstraints=critical,CA:FALSE'"


def unfit(certificate: x509.Certificate, identity: Identity, now: datetime) -> str | None:
    """Return why a certificate must not be pinned as `identity`, as the end of "vm1.pem ...", or None."""
    try:
        return _form(certificate) or weakness(certificate) or _use(certificate, identity) or _time(certificate, now)
    except ValueError as error:
        return f"holds a malformed certificate ({error}): make a new one"


def _form(certificate: x509.Certificate) -> str | None:
    if certificate.version is not x509.Version.v3:
        return f"is an X.509 v1 certificate, which could vouch for others: {_AGAIN}"
    if is_authority(certificate):
        return f"is an authority's (CA:TRUE), which could vouch for others: {_AGAIN}, or trust it by 'cmapp keys trust'"
    if may_sign_certificates(certificate):
        return f"may sign certificates (keyCertSign), so it could vouch for others: {_AGAIN}"
    return None


def may_sign_certificates(certificate: x509.Certificate) -> bool:
    """Tell whether the key usage, or Netscape's precursor of it, says that the key may sign certificates."""
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.KeyUsage) and extension.value.key_cert_sign:
            return True
        if extension.oid == _NETSCAPE_TYPE and isinstance(extension.value, x509.UnrecognizedExtension):
            return bool(extension.value.value[-1:]) and bool(extension.value.value[-1] & _NETSCAPE_AUTHORITY)
    return False


def _use(certificate: x509.Certificate, identity: Identity) -> str | None:
    purpose, name = _PURPOSES[identity.role]
    try:
        allowed = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        allowed = None
    if allowed is not None and purpose not in allowed:
        return f"may not be used by a {identity.role.value} (extended key usage): make one with {name}, or without any"
    try:
        said = identity_of(certificate)
    except SettingsError as nobody:
        return None if "no role URI" in str(nobody) else f"{nobody}: make one with one role URI, or with none"
    return None if said == identity else f"says that it is {said}'s, not {identity}'s: name whom it names"


def _time(certificate: x509.Certificate, now: datetime) -> str | None:
    if now > ends(certificate):
        return f"has expired on {ends(certificate):%Y-%m-%d}: make a new one"
    if now < begins(certificate):
        return f"is not valid before {begins(certificate):%Y-%m-%d %H:%M} UTC: check the clock"
    return None
