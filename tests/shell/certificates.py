"""Certificates and revocation lists that `cmapp keys` would never make, and key folders of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
PURPOSES = {"host": ExtendedKeyUsageOID.CLIENT_AUTH, "guest": ExtendedKeyUsageOID.SERVER_AUTH}
PEM = serialization.Encoding.PEM
# How X.509 writes some of its fields.
VERSION_3 = bytes.fromhex("a003020102")
SHA_256, SHA_1 = bytes.fromhex("300a06082a8648ce3d040302"), bytes.fromhex("300906072a8648ce3d0401")


class Made(NamedTuple):
    """A key, its certificate, and those that are shown with it."""

    key: Key
    certificate: x509.Certificate
    between: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        """The certificate, and those that are shown with it."""
        return b"".join(one.public_bytes(PEM) for one in (self.certificate, *self.between))


def new_key(kind: str = "P-256") -> Key:
    """Return a new key of a kind such as `RSA 2048`, `P-384` or `Ed25519`."""
    curves = {"P-192": ec.SECP192R1(), "P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    return rsa.generate_private_key(65537, int(kind.removeprefix("RSA ")))


def new_authority(name: str, signer: Made | None = None, kind: str = "P-256", **how: timedelta) -> Made:
    """Return an authority, under another if there is a `signer`."""
    key = new_key(kind)
    builder = unsigned(name, name if signer is None else common_name(signer), key, **how)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return sign(builder, key, signer)


def new_leaf(  # noqa: PLR0913 - one for each thing that may be odd about it
    signer: Made | None,
    role: str,
    name: str,
    *,
    kind: str = "P-256",
    uris: Iterable[str] | None = None,
    purpose: x509.ObjectIdentifier | None = None,
    digest: str = "SHA-256",
    extensions: Iterable[x509.ExtensionType] = (),
    **how: timedelta,
) -> Made:
    """Return what a company's authority would issue for a host or a guest; without `signer` it signs itself."""
    key = new_key(kind)
    uris = [f"cmapp://{role}/{name}"] if uris is None else uris
    names = [*map(x509.UniformResourceIdentifier, uris), x509.DNSName(name)]
    builder = unsigned(name, name if signer is None else common_name(signer), key, **how)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose or PURPOSES[role]]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if signer is not None:
        names_its_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
        builder = builder.add_extension(names_its_key, critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    made = sign(builder, key, signer)
    return made if digest == "SHA-256" else resigned(made, signer, SHA_1, {})


def plain(name: str = "Unknown", kind: str = "P-256", **how: timedelta) -> Made:
    """Return what `keytool -genkeypair` makes by default: it signs itself and says nothing but a name."""
    key = new_key(kind)
    return sign(unsigned(name, name, key, **how), key, None)


def first_version(name: str = "Unknown", *, signer: Made | None = None) -> Made:
    """Return a certificate of X.509 version 1, which has no extensions: OpenSSL takes it for an authority."""
    key = new_key()
    made = sign(unsigned(name, name if signer is None else common_name(signer), key), key, signer)
    return resigned(made, signer, SHA_256, {VERSION_3: b""})


def resigned(made: Made, signer: Made | None, algorithm: bytes, changes: dict[bytes, bytes]) -> Made:
    """Return a certificate with some of its bytes changed, signed by way of any algorithm, with P-256 keys."""
    signed = made.certificate.tbs_certificate_bytes
    fields = signed[len(signed) - _content(signed) :].replace(SHA_256, algorithm, 1)
    for old, new in changes.items():
        fields = fields.replace(old, new)
    signing = (signer or made).key
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    body = _element(0x30, fields)
    digest = hashes.SHA256() if algorithm == SHA_256 else hashes.SHA1()  # noqa: S303 - weak on purpose
    signature = _element(0x03, b"\0" + signing.sign(body, ec.ECDSA(digest)))
    return Made(made.key, x509.load_der_x509_certificate(_element(0x30, body + algorithm + signature)), made.between)


def new_list(
    authority: Made, revoked: Iterable[Made] = (), *, since: timedelta = -DAY, until: timedelta = DAY
) -> bytes:
    """Return a revocation list in PEM."""
    builder = x509.CertificateRevocationListBuilder(authority.certificate.subject, NOW + since, NOW + until)
    for made in revoked:
        serial = made.certificate.serial_number
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, NOW - DAY).build())
    algorithm = None if isinstance(authority.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(authority.key, algorithm).public_bytes(PEM)


def unsigned(
    name: str, issuer: str, key: Key, *, since: timedelta = -DAY, until: timedelta = 90 * DAY
) -> x509.CertificateBuilder:
    """Return a certificate that is to be signed."""
    builder = x509.CertificateBuilder(_name(issuer), _name(name), key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(NOW + since).not_valid_after(NOW + until)


def sign(builder: x509.CertificateBuilder, key: Key, signer: Made | None) -> Made:
    """Sign it, by itself if there is nobody else; what stands between the signer and its root is shown with it."""
    signing = key if signer is None else signer.key
    algorithm = None if isinstance(signing, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(signing, algorithm)
    root = signer is None or signer.certificate.issuer == signer.certificate.subject
    return Made(key, certificate, () if root or signer is None else (signer.certificate, *signer.between))


def write_keys(folder: Path, made: Made, *trusted: Made, lists: bytes = b"") -> Path:
    """Make a key folder that shows `made` and trusts these authorities."""
    folder.mkdir(parents=True, exist_ok=True)
    private, unlocked = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(made.key.private_bytes(PEM, private, unlocked))
    (folder / "key.pem").chmod(0o600)
    (folder / "cert.pem").write_bytes(made.pem)
    if trusted:
        (folder / "ca.pem").write_bytes(b"".join(one.certificate.public_bytes(PEM) for one in trusted))
    if lists:
        (folder / "crl.pem").write_bytes(lists)
    return folder


def pin(folder: Path, role: str, name: str, *made: Made) -> None:
    """Pin these certificates as those of a peer."""
    peers = folder / "peers" / role
    peers.mkdir(parents=True, exist_ok=True)
    (peers / f"{name}.pem").write_bytes(b"".join(one.certificate.public_bytes(PEM) for one in made))


def common_name(made: Made) -> str:
    """Return the name of a certificate."""
    [name] = made.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _element(tag: int, content: bytes) -> bytes:
    count = (len(content).bit_length() + 7) // 8
    length = (
        bytes([len(content)]) if len(content) < 0x80 else bytes([0x80 | count]) + len(content).to_bytes(count, "big")
    )
    return bytes([tag]) + length + content


def _content(element: bytes) -> int:
    """Return how long the content of an element is."""
    return element[1] if element[1] < 0x80 else int.from_bytes(element[2 : 2 + (element[1] & 0x7F)], "big")
