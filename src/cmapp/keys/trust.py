"""Authorities in a key folder: which may be trusted, and which one is meant.

Responsible for judging and finding authorities. The invariant: what is trusted says of itself that it is an
authority, and signs itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from cmapp.errors import SettingsError
from cmapp.keys.description import begins, common_name, ends, is_authority
from cmapp.keys.strength import weakness

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_FEWEST_DIGITS = 8  # of a fingerprint


def unfit_authority(certificate: x509.Certificate, now: datetime) -> str | None:
    """Return why a certificate must not be trusted as an authority, as the end of "ca.pem ...", or None."""
    try:
        if certificate.version is not x509.Version.v3:
            return "is an X.509 v1 certificate, which cannot say that it is an authority: use a v3 one"
        if not is_authority(certificate):
            return "is no authority's (CA:TRUE): to trust this one certificate alone, use 'cmapp keys pin'"
        usage = _usage(certificate)
    except ValueError as error:
        return f"holds a malformed certificate ({error}): make a new one"
    if usage is not None and not usage.key_cert_sign:
        return "may not sign certificates (key usage without keyCertSign): make another authority"
    if certificate.issuer != certificate.subject:
        issuer = common_name(certificate.issuer)
        return f"is an intermediate's: trust {issuer}, which issued it, and let cert.pem have it after the leaf"
    if weak := weakness(certificate):
        return weak
    if now > ends(certificate):
        return f"has expired on {ends(certificate):%Y-%m-%d}: use one that is valid"
    if now < begins(certificate):
        return f"is not valid before {begins(certificate):%Y-%m-%d %H:%M} UTC: check the clock"
    return None


def find_authority(authorities: Sequence[x509.Certificate], who: str) -> x509.Certificate:
    """Return the one authority of that name or fingerprint, or its beginning; raises SettingsError."""
    digits = who.replace(":", "").lower()
    found = [one for one in authorities if common_name(one.subject) == who]
    if not found and len(digits) >= _FEWEST_DIGITS:
        found = [one for one in authorities if one.fingerprint(hashes.SHA256()).hex().startswith(digits)]
    if len(found) == 1:
        return found[0]
    if found:
        raise SettingsError(f"{len(found)} authorities there are called {who}: name one by its SHA-256 fingerprint")
    there = ", ".join(common_name(one.subject) for one in authorities)
    raise SettingsError(f"no authority there is called {who} or has that fingerprint: there is {there}")


def vouches_for(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Tell whether a certificate says that this authority issued it."""
    if certificate.issuer != authority.subject:
        return False
    extensions = certificate.extensions, authority.extensions
    try:
        signer = extensions[0].get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        own = extensions[1].get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return True
    return signer in {None, own}


def _usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None
