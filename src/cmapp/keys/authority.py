"""Certificates: who may be a host or a guest, said in X.509.

Responsible for what stands in a certificate of ours and for nothing else: no file is touched here, and time enters
as `now`. The invariant: a certificate issued here bears exactly one role, and bears it twice: as a URI in its
subject alternative name, which cmapp reads, and as an extended key usage, which OpenSSL and JSSE enforce.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cmapp.errors import SettingsError
from cmapp.keys.description import ends
from cmapp.net.address import is_host_name, is_ip_address
from cmapp.net.identity import NAME_LIMIT, Identity, Role, is_name, role_uri

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

AUTHORITY_DAYS = 3650
ISSUED_DAYS = 825  # what the strictest verifiers accept of a private authority's certificate

CLOCK_SKEW = timedelta(minutes=5)  # a guest whose clock runs behind can use its certificate at once
_PURPOSES = {Role.HOST: ExtendedKeyUsageOID.CLIENT_AUTH, Role.GUEST: ExtendedKeyUsageOID.SERVER_AUTH}


@dataclass(frozen=True, slots=True)
class Credential:
    """A private key and the certificate of its public half."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def make_authority(name: str | None, *, days: int, now: datetime) -> Credential:
    """Return an authority that signs itself, called after its key when `name` is None."""
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = f"cmapp authority {identifier.digest.hex()[:8]}" if name is None else name
    if not 0 < len(name) <= NAME_LIMIT or not name.isprintable():
        raise SettingsError(f"{name!r} cannot name an authority: use 1 to {NAME_LIMIT} printable characters")
    subject = distinguished(name)
    builder = (
        _unsigned(subject, subject, key.public_key(), now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return Credential(key, builder.sign(key, hashes.SHA256()))


def issue(
    authority: Credential, identity: Identity, *, sans: Iterable[str] = (), days: int, now: datetime
) -> Credential:
    """Return a new key and certificate for `identity`; the rest is as for `certify`."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Credential(key, certify(authority, identity, key.public_key(), sans=sans, days=days, now=now))


def certify(  # noqa: PLR0913 - what stands in a certificate
    authority: Credential,
    identity: Identity,
    key: CertificatePublicKeyTypes,
    *,
    sans: Iterable[str] = (),
    days: int,
    now: datetime,
) -> x509.Certificate:
    """Return a certificate that `key` is `identity`'s, also for the names and IP addresses in `sans`.

    It ends with its authority, if that is sooner than in `days`. Raises SettingsError for a name that no
    certificate can bear, and for an authority that has expired.
    """
    granted, last = entitlements(identity, sans), ends(authority.certificate)
    if now >= last:
        raise SettingsError(f"the authority has expired on {last:%Y-%m-%d}: make one with 'cmapp keys init'")
    end = min(now + timedelta(days=days), last)
    signer = authority.key.public_key()
    builder = (
        _unsigned(distinguished(identity.name), authority.certificate.subject, key, now, end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )
    for extension, critical in granted:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(authority.key, hashes.SHA256())


def entitlements(identity: Identity, sans: Iterable[str]) -> list[tuple[x509.ExtensionType, bool]]:
    """Return the extensions, each with whether it is critical, that make a certificate `identity`'s.

    A signing request asks for the same. Raises SettingsError for a name that no certificate can bear.
    """
    if not is_name(identity.name):
        raise SettingsError(
            f"{identity.name!r} cannot name a {identity.role.value}: use at most {NAME_LIMIT} letters,"
            " digits, dots, hyphens and underscores, a letter or digit first (an IPv6 address is a --san)"
        )
    names = dict.fromkeys(_general_name(san) for san in (identity.name, *sans))
    uri = x509.UniformResourceIdentifier(role_uri(identity))
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([_PURPOSES[identity.role]]), False),
        (x509.SubjectAlternativeName([uri, *names]), False),
    ]


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end)
    )


def distinguished(name: str) -> x509.Name:
    """Return the distinguished name that holds a common name alone."""
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
