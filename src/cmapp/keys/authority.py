"""Certificates: who may be a host or a guest, said in X.509.

Responsible for what stands in a certificate and for nothing else: no file is touched here, and time enters as
`now`. The invariant: a certificate issued here bears exactly one role, and bears it twice: as a URI in its
subject alternative name, which cmapp reads, and as an extended key usage, which OpenSSL and JSSE enforce.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cmapp.errors import SettingsError
from cmapp.net.address import is_host_name, is_ip_address
from cmapp.net.tls import NAME_LIMIT, Identity, Role, is_name, role_uri

if TYPE_CHECKING:
    from collections.abc import Iterable

AUTHORITY_DAYS = 3650
ISSUED_DAYS = 825  # what the strictest verifiers accept of a private authority's certificate

_CLOCK_SKEW = timedelta(minutes=5)  # a guest whose clock runs behind can use its certificate at once
_PURPOSES = {Role.HOST: ExtendedKeyUsageOID.CLIENT_AUTH, Role.GUEST: ExtendedKeyUsageOID.SERVER_AUTH}


@dataclass(frozen=True, slots=True)
class Credential:
    """A private key and the certificate of its public half."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Description:
    """What a certificate says, none of it verified. Times are in UTC, the fingerprint is SHA-256."""

    who: str
    role: str
    names: tuple[str, ...]
    issuer: str
    since: datetime
    until: datetime
    fingerprint: str


def make_authority(name: str | None, *, days: int, now: datetime) -> Credential:
    """Return an authority that signs itself, called after its key when `name` is None."""
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = f"cmapp authority {identifier.digest.hex()[:8]}" if name is None else name
    if not 0 < len(name) <= NAME_LIMIT or not name.isprintable():
        raise SettingsError(f"{name!r} cannot name an authority: use 1 to {NAME_LIMIT} printable characters")
    subject = _distinguished(name)
    builder = (
        _unsigned(subject, subject, key, now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return Credential(key, builder.sign(key, hashes.SHA256()))


def issue(
    authority: Credential, identity: Identity, *, sans: Iterable[str] = (), days: int, now: datetime
) -> Credential:
    """Return a new key and certificate for `identity`, also for the names and IP addresses in `sans`.

    It ends with its authority, if that is sooner than in `days`. Raises SettingsError for a name that no
    certificate can bear, and for an authority that has expired.
    """
    if not is_name(identity.name):
        raise SettingsError(
            f"{identity.name!r} cannot name a {identity.role.value}: use at most {NAME_LIMIT} letters,"
            " digits, dots, hyphens and underscores, a letter or digit first (an IPv6 address is a --san)"
        )
    last = ends(authority.certificate)
    if now >= last:
        raise SettingsError(f"the authority has expired on {last:%Y-%m-%d}: make one with 'cmapp keys init'")
    end = min(now + timedelta(days=days), last)
    key = ec.generate_private_key(ec.SECP256R1())
    names = dict.fromkeys(_general_name(san) for san in (identity.name, *sans))
    uri = x509.UniformResourceIdentifier(role_uri(identity))
    signer = authority.key.public_key()
    builder = (
        _unsigned(_distinguished(identity.name), authority.certificate.subject, key, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_PURPOSES[identity.role]]), critical=False)
        .add_extension(x509.SubjectAlternativeName([uri, *names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )
    return Credential(key, builder.sign(authority.key, hashes.SHA256()))


def describe(certificate: x509.Certificate) -> Description:
    """Return what any certificate says, cmapp's or not; raises ValueError for a malformed extension."""
    names, uris = _alternative_names(certificate)
    return Description(
        who=_common_name(certificate.subject),
        role=_role(certificate, uris),
        names=names,
        issuer=_common_name(certificate.issuer),
        since=begins(certificate),
        until=ends(certificate),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
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


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(end)
    )


def _distinguished(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    if is_ip_address(text) and "%" not in text:
        return x509.IPAddress(ipaddress.ip_address(text))
    if is_host_name(text):
        return x509.DNSName(text)
    raise SettingsError(f"{text!r} is neither a host name nor an IP address: no certificate can bear it")


def _alternative_names(certificate: x509.Certificate) -> tuple[tuple[str, ...], list[str]]:
    """Return the names to call the bearer by, and the URIs."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), []
    callable_names = [f"DNS {name}" for name in names.get_values_for_type(x509.DNSName)]
    callable_names += [f"IP {address}" for address in names.get_values_for_type(x509.IPAddress)]
    return tuple(callable_names), names.get_values_for_type(x509.UniformResourceIdentifier)


def _role(certificate: x509.Certificate, uris: list[str]) -> str:
    """Return `host`, `guest` or `authority`, or what keeps the certificate from being either."""
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "authority"
    except x509.ExtensionNotFound:
        pass
    roles = [uri for uri in uris if uri.lower().startswith("cmapp:")]
    for role in Role:
        if len(roles) == 1 and roles[0].startswith(f"cmapp://{role.value}/"):
            return role.value
    return "none: it has no role URI" if not roles else f"none: {', '.join(roles)}"


def _common_name(name: x509.Name) -> str:
    common_names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common_names[0].value) if common_names else name.rfc4514_string() or "nobody"
