"""What certificates, requests and revocation lists say, none of it verified.

Responsible for reading what stands in them, cmapp's or not. The invariant: nothing here decides whom to trust;
times are in UTC, fingerprints are SHA-256, and what is malformed is a ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from cmapp.errors import SettingsError
from cmapp.keys.strength import key_words
from cmapp.net.identity import Identity, Role, borne, role_uris

if TYPE_CHECKING:
    from typing import TypeAlias

    Bearer: TypeAlias = x509.Certificate | x509.CertificateSigningRequest


@dataclass(frozen=True, slots=True)
class Description:
    """What a certificate says, none of it verified. Times are in UTC, the fingerprint is SHA-256."""

    who: str
    role: str
    names: tuple[str, ...]
    key: str
    issuer: str
    since: datetime
    until: datetime
    fingerprint: str


def describe(certificate: x509.Certificate) -> Description:
    """Return what any certificate says, cmapp's or not; raises ValueError for a malformed extension."""
    return Description(
        who=common_name(certificate.subject),
        role=role_words(certificate),
        names=names(certificate),
        key=key_words(certificate),
        issuer=common_name(certificate.issuer),
        since=begins(certificate),
        until=ends(certificate),
        fingerprint=colons(certificate.fingerprint(hashes.SHA256())),
    )


def begins(certificate: x509.Certificate) -> datetime:
    """Return the first instant at which the certificate is valid, in UTC."""
    # Before version 42 cryptography has only the naive property, which later versions warn of.
    aware: datetime | None = getattr(certificate, "not_valid_before_utc", None)
    return aware or certificate.not_valid_before.replace(tzinfo=UTC)


def ends(certificate: x509.Certificate) -> datetime:
    """Return the last instant at which the certificate is valid, in UTC."""
    aware: datetime | None = getattr(certificate, "not_valid_after_utc", None)
    return aware or certificate.not_valid_after.replace(tzinfo=UTC)


def list_begins(revoked: x509.CertificateRevocationList) -> datetime:
    """Return from when on a revocation list is valid, in UTC."""
    aware: datetime | None = getattr(revoked, "last_update_utc", None)
    return aware or revoked.last_update.replace(tzinfo=UTC)


def list_ends(revoked: x509.CertificateRevocationList) -> datetime | None:
    """Return when a revocation list has to be replaced, in UTC; None if it does not say."""
    if hasattr(revoked, "next_update_utc"):
        return revoked.next_update_utc
    naive: datetime | None = revoked.next_update
    return naive and naive.replace(tzinfo=UTC)


def list_number(revoked: x509.CertificateRevocationList) -> int:
    """Return the number of a revocation list, 0 if it has none."""
    try:
        return revoked.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def identity_of(bearer: Bearer) -> Identity:
    """Return whom the one role URI names; raises SettingsError, whose sentence goes on after "FILE ..."."""
    uris = _uris(bearer)
    try:
        return borne(uris)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate says that it may vouch for others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def sans(bearer: Bearer) -> tuple[str, ...]:
    """Return the DNS names and IP addresses that the bearer may be called by, as `--san` takes them."""
    there = _alternative_names(bearer)
    return (
        *there.get_values_for_type(x509.DNSName),
        *map(str, there.get_values_for_type(x509.IPAddress)),
    )


def names(bearer: Bearer) -> tuple[str, ...]:
    """Return the same with their kinds: `DNS vm1`, `IP 192.0.2.7`."""
    there = _alternative_names(bearer)
    return (
        *(f"DNS {name}" for name in there.get_values_for_type(x509.DNSName)),
        *(f"IP {address}" for address in there.get_values_for_type(x509.IPAddress)),
    )


def role_words(bearer: Bearer) -> str:
    """Return `host`, `guest` or `authority`, or what keeps the bearer from being either."""
    if isinstance(bearer, x509.Certificate) and is_authority(bearer):
        return "authority"
    roles = role_uris(_uris(bearer))
    for role in Role:
        if len(roles) == 1 and roles[0].startswith(f"cmapp://{role.value}/"):
            return role.value
    return "none: it has no role URI" if not roles else f"none: {', '.join(roles)}"


def common_name(name: x509.Name) -> str:
    """Return what to call the bearer of a distinguished name."""
    common_names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common_names[0].value) if common_names else name.rfc4514_string() or "nobody"


def key_fingerprint(bearer: Bearer) -> str:
    """Return the SHA-256 of the public key, by which two people can compare on the telephone what was sent."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        return colons(sha256(bearer.public_key().public_bytes(serialization.Encoding.DER, form)).digest())
    except (UnsupportedAlgorithm, ValueError):
        return "unknown"


def colons(digest: bytes) -> str:
    """Write a digest as OpenSSL does."""
    return digest.hex(":").upper()


def _alternative_names(bearer: Bearer) -> x509.SubjectAlternativeName:
    try:
        return bearer.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _uris(bearer: Bearer) -> list[str]:
    return _alternative_names(bearer).get_values_for_type(x509.UniformResourceIdentifier)
