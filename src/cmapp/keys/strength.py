"""Keys and signatures that OpenSSL turns away at its default security level, in words.

Responsible for what is weak and what a key is called. The invariant: what is called good here, both OpenSSL 3 and
JSSE accept in TLS 1.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import SignatureAlgorithmOID as Signed

if TYPE_CHECKING:
    from cryptography import x509

_FEWEST_RSA_BITS = 2048
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_BROKEN = {Signed.RSA_WITH_MD5: "MD5", Signed.RSA_WITH_SHA1: "SHA-1", Signed.ECDSA_WITH_SHA1: "SHA-1"}
_ADVICE = f"use EC P-256, P-384 or P-521, Ed25519, or RSA with {_FEWEST_RSA_BITS} bits or more"


def key_words(bearer: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """Return what kind of key it is, such as `EC P-256` or `RSA 2048 bits`."""
    try:
        key = bearer.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return "unknown"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {_CURVES.get(key.curve.name, key.curve.name)}"
    # The classes of 38 begin with an underscore: _Ed25519PublicKey.
    return type(key).__name__.strip("_").removesuffix("PublicKey")


def weakness(bearer: x509.Certificate | x509.CertificateSigningRequest) -> str | None:
    """Return what is wrong with the key or the signature, as the end of "vm1.pem ...", or None."""
    try:
        key = bearer.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return f"has a key of a kind that is not known here: {_ADVICE}"
    strong = (
        (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _FEWEST_RSA_BITS)
        or (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES)
        or isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
    )
    if not strong:
        return f"has a weak or unsuitable key ({key_words(bearer)}), which TLS refuses: {_ADVICE}"
    if broken := _BROKEN.get(bearer.signature_algorithm_oid):
        return f"is signed with {broken}, which TLS refuses: have it signed with SHA-256"
    return None
