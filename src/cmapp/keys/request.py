"""Signing requests: how a key gets a certificate without ever leaving its machine.

Responsible for what stands in a request and what is taken from one. The invariant: a request asks and never
decides: of all that stands in it only the public key, one role URI, and DNS names and IP addresses are ever read,
and those only after its signature has proved that whoever asks has the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519

from cmapp.errors import SettingsError
from cmapp.keys.authority import distinguished, entitlements
from cmapp.keys.description import identity_of, key_fingerprint, sans
from cmapp.keys.strength import key_words, weakness

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificateIssuerPrivateKeyTypes,
        CertificatePublicKeyTypes,
    )

    from cmapp.net.identity import Identity


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for: `names` are the DNS names and IP addresses, `identity` is None if it has no role."""

    identity: Identity | None
    names: tuple[str, ...]
    key: CertificatePublicKeyTypes
    kind: str
    fingerprint: str


def make_request(
    key: CertificateIssuerPrivateKeyTypes, identity: Identity, names: Iterable[str]
) -> x509.CertificateSigningRequest:
    """Return a request for `identity`, also for the names and IP addresses in `names`; raises SettingsError.

    It asks for every extension that the certificate needs, so that a company's authority can sign it as it is.
    """
    wanted = entitlements(identity, names)
    builder = x509.CertificateSigningRequestBuilder().subject_name(distinguished(identity.name))
    for extension, critical in wanted:
        builder = builder.add_extension(extension, critical=critical)
    own_hash = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(key, None if own_hash else hashes.SHA256())


def read_request(request: x509.CertificateSigningRequest) -> Asked:
    """Return what a request asks for; raises SettingsError, whose sentence goes on after "FILE ..."."""
    try:
        proven = request.is_signature_valid
    except (InternalError, UnsupportedAlgorithm, ValueError, TypeError):
        proven = False
    if not proven:
        raise SettingsError("is not signed by the key in it: it was changed on its way, ask for it again")
    if weak := weakness(request):
        raise SettingsError(weak)
    try:
        names, has_role = sans(request), "cmapp:" in _uris(request).lower()
    except ValueError as error:
        raise SettingsError(f"asks for a malformed extension ({error}): make it with 'cmapp keys request'") from None
    identity = identity_of(request) if has_role else None
    return Asked(identity, names, request.public_key(), key_words(request), key_fingerprint(request))


def _uris(request: x509.CertificateSigningRequest) -> str:
    try:
        there = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return "\n".join(there.get_values_for_type(x509.UniformResourceIdentifier))
