"""The key folders of a campaign: good ones by `cmapp keys`, and all that it would never make.

The good ones are `guest/vm1` (the server's), `host/node1` (the honest managers') and `host/rogue` (an insider's, who
has a key of the same authority and means ill). The others stand in `odd/`, each named after what is wrong with it.
The invariant: each odd certificate is wrong in one thing only, so that what refuses it is what was to be tried.
"""

from __future__ import annotations

import ipaddress
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

    Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

ADDRESS = "127.0.0.1"
GUEST, HONEST, ROGUE = "guest/vm1", "host/node1", "host/rogue"
WEAK_BITS = 1024
DAY = timedelta(days=1)
_PURPOSES = {"host": ExtendedKeyUsageOID.CLIENT_AUTH, "guest": ExtendedKeyUsageOID.SERVER_AUTH}


class Mint:
    """The keys in `folder`."""

    def __init__(self, folder: Path, cmapp: str) -> None:
        """Make all of them; `cmapp` is the administrator's tool."""
        self._folder = folder
        self._cmapp = cmapp
        self._now = datetime.now(UTC)
        self._run("init", str(folder))
        for role, name, *sans in (("guest", "vm1", "--san", ADDRESS), ("host", "node1"), ("host", "rogue")):
            self._run("issue", str(folder), role, name, *sans)
        self._run("issue", str(folder), "guest", "vm2")
        authority = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), password=None)
        if not isinstance(authority, ec.EllipticCurvePrivateKey):
            raise TypeError("the authority has no EC key")
        self._authority: Key = authority
        self._issuer = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        for role in _PURPOSES:
            self._odd(role)
        self._revoke()

    def _run(self, *arguments: str) -> None:
        command = [self._cmapp, "keys", *arguments]
        done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"cmapp keys {' '.join(arguments)}: {done.stderr.strip()}")

    def _odd(self, role: str) -> None:
        """Make what is wrong in the hands of one of that role."""
        self._make(f"{role}-revoked", role)
        self._make(f"{role}-expired", role, days=(-9, -1))
        self._make(f"{role}-early", role, days=(1, 9))
        self._make(f"{role}-weak", role, key=rsa.generate_private_key(65537, WEAK_BITS))
        self._make(f"{role}-roleless", role, uris=())
        self._make(f"{role}-two-roles", role, uris=("cmapp://host/evil", "cmapp://guest/vm1"))
        self._make(f"{role}-other-role", role, uris=(f"cmapp://{'guest' if role == 'host' else 'host'}/evil",))
        self._make(f"{role}-forged-name", role, uris=(f"cmapp://{role}/a b\nJan 1 INFO: all is well",))
        self._make(f"{role}-self-signed", role, signer="itself")
        self._make(f"{role}-stranger", role, signer="another")
        self._make(f"{role}-by-a-leaf", role, signer=f"{role}-revoked")

    def _make(  # noqa: PLR0913 - one for each thing that can be wrong
        self,
        name: str,
        role: str,
        *,
        days: tuple[int, int] = (-1, 9),
        key: Key | None = None,
        uris: tuple[str, ...] | None = None,
        signer: str = "",
    ) -> None:
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = _named("evil")
        bearer = (f"cmapp://{role}/{'vm1' if role == 'guest' else 'evil'}",) if uris is None else uris
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in bearer]
        names.append(x509.IPAddress(ipaddress.ip_address(ADDRESS)))
        issuer, signing = self._signer(signer, subject, key)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now + days[0] * DAY)
            .not_valid_after(self._now + days[1] * DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_PURPOSES[role]]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(signing, hashes.SHA256())
        )
        folder = self._folder / "odd" / name
        folder.mkdir(parents=True)
        chain = certificate.public_bytes(serialization.Encoding.PEM)
        if signer.startswith(role):
            chain += (self._folder / "odd" / signer / "cert.pem").read_bytes()
        (folder / "cert.pem").write_bytes(chain)
        (folder / "key.pem").write_bytes(_pem(key))
        (folder / "ca.pem").write_bytes((self._folder / "ca.pem").read_bytes())

    def _signer(self, signer: str, subject: x509.Name, key: Key) -> tuple[x509.Name, Key]:
        """Return the name and the key of who signs: nobody else's if `signer` is "itself", a leaf's if it names one."""
        match signer:
            case "":
                return self._issuer.subject, self._authority
            case "itself":
                return subject, key
            case "another":  # by the name of ours, but with a key of its own
                return self._issuer.subject, ec.generate_private_key(ec.SECP256R1())
        leaf = self._folder / "odd" / signer
        signing = serialization.load_pem_private_key((leaf / "key.pem").read_bytes(), password=None)
        if not isinstance(signing, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{leaf} has no EC key")
        return x509.load_pem_x509_certificate((leaf / "cert.pem").read_bytes()).subject, signing

    def _revoke(self) -> None:
        """Give both sides a revocation list of what was revoked."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._issuer.subject)
            .last_update(self._now - DAY)
            .next_update(self._now + DAY)
        )
        for role in _PURPOSES:
            certificate = self._folder / "odd" / f"{role}-revoked" / "cert.pem"
            serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self._now - DAY).build()
            builder = builder.add_revoked_certificate(revoked)
        listed = builder.sign(self._authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        for keys in (GUEST, HONEST):
            (self._folder / keys / "crl.pem").write_bytes(listed)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(key: Key) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
