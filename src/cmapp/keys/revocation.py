"""Revocation lists: which certificates count no more, although they have not expired.

Responsible for what stands in an authority's list. The invariant: a list made here says all that the one before
said, under a higher number, so that nothing revoked ever comes back.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cmapp.errors import SettingsError
from cmapp.keys.authority import CLOCK_SKEW
from cmapp.keys.description import ends, list_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from cmapp.keys.authority import Credential

    List = x509.CertificateRevocationList


def make_list(
    authority: Credential,
    former: List | None,
    certificates: Iterable[x509.Certificate],
    *,
    days: int | None,
    now: datetime,
) -> List:
    """Return the authority's next list: what `former` says, and `certificates`.

    It ends in `days`, or with the authority if that is sooner or `days` is None. Raises SettingsError if the
    authority has expired: nothing that it issued is accepted any more.
    """
    last = ends(authority.certificate)
    if now >= last:
        raise SettingsError(f"the authority has expired on {last:%Y-%m-%d}: nothing of it is accepted any more")
    end = last if days is None else min(now + timedelta(days=days), last)
    number = 1 if former is None else list_number(former) + 1
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - CLOCK_SKEW)
        .next_update(end)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for entry in former or ():
        builder = builder.add_revoked_certificate(entry)
    for certificate in certificates:
        blank = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
        builder = builder.add_revoked_certificate(blank.revocation_date(now).build())
    return builder.sign(authority.key, hashes.SHA256())


def has_issued(authority: Credential, certificate: x509.Certificate) -> bool:
    """Tell whether it was this authority that signed `certificate`."""
    try:
        algorithm = certificate.signature_hash_algorithm
        if certificate.issuer != authority.certificate.subject or algorithm is None:
            return False
        authority.key.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(algorithm))
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def is_list_of(authority: x509.Certificate, revoked: List) -> bool:
    """Tell whether `revoked` is the list of this authority."""
    key = authority.public_key()
    try:
        return revoked.issuer == authority.subject and revoked.is_signature_valid(key)  # type: ignore[arg-type]
    except (InternalError, TypeError, ValueError, UnsupportedAlgorithm):
        return False


def is_revoked(certificate: x509.Certificate, lists: Iterable[List]) -> bool:
    """Tell whether one of the lists, each taken at its word, names the certificate."""
    return any(
        revoked.issuer == certificate.issuer
        and revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        for revoked in lists
    )


def merged(there: Sequence[List], new: Sequence[List]) -> list[List]:
    """Return the lists of both, where a new one takes the place of its issuer's old one."""
    return [*(old for old in there if all(_origin(old) != _origin(one) for one in new)), *new]


def _origin(revoked: List) -> tuple[x509.Name, bytes | None]:
    """Return what tells lists of different authorities apart, even of the same name."""
    try:
        identifier = revoked.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        identifier = None
    return revoked.issuer, identifier
