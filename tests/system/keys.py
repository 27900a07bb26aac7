"""Key folders for the tests: made by the installed command, and some that it would never make."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CMAPP = str(Path(sys.executable).parent / "cmapp")
NAMES = ("127.0.0.1", "::1", "localhost")


class Keys:
    """An authority with one guest, `vm1`, which is every loopback name, and one host, `node1`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cmapp("keys", "init", str(folder))
        self.guest = self.issue("guest", "vm1", *NAMES)
        self.host = self.issue("host", "node1")

    def issue(self, role: str, name: str, *sans: str) -> Path:
        """Return a new key folder."""
        cmapp("keys", "issue", str(self.folder), role, name, *(word for san in sans for word in ("--san", san)))
        return self.folder / role / name

    def dated(self, role: str, name: str, begin: timedelta, end: timedelta) -> Path:
        """Return a new key folder whose certificate is valid from now plus `begin` until now plus `end`."""
        keys = self.issue(role, name, *(NAMES if role == "guest" else ()))
        issued = x509.load_pem_x509_certificate((keys / "cert.pem").read_bytes())
        authority = serialization.load_pem_private_key((self.folder / "ca-key.pem").read_bytes(), password=None)
        assert isinstance(authority, ec.EllipticCurvePrivateKey)
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(issued.subject)
            .issuer_name(issued.issuer)
            .public_key(issued.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
        )
        for extension in issued.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        certificate = builder.sign(authority, hashes.SHA256())
        (keys / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return keys


def cmapp(*arguments: str) -> str:
    """Run the administrator's tool, which must succeed, and return what it said."""
    return subprocess.run([CMAPP, *arguments], env={}, check=True, capture_output=True, text=True, timeout=60).stdout
