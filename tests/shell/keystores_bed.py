"""Keystores and certificates for the tests of `cmapp keys import` and `export`, made without Java."""

from __future__ import annotations

import stat
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from cmapp.cli.cmapp import main
from cmapp.keys import jks
from cmapp.keys.authority import Credential, issue, make_authority
from cmapp.net.identity import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]

NOW, DAY = datetime.now(UTC), timedelta(days=1)
PASSWORD, OTHER = "changeit", "another password"
AUTHORITY = make_authority("the authority", days=9, now=NOW)
HOST = issue(AUTHORITY, Identity(Role.HOST, "n1"), days=9, now=NOW)


def self_signed(
    name: str,
    *extensions: x509.ExtensionType,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    digest: hashes.HashAlgorithm | None = None,
    begin: datetime = NOW - DAY,
    end: datetime = NOW + DAY,
) -> Credential:
    """Return a certificate as keytool makes it by default: it says nothing but a name."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, begin, end)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Credential(key, builder.sign(key, digest or hashes.SHA256()))  # type: ignore[arg-type]


def signed_by(
    authority: Credential, name: str, *extensions: x509.ExtensionType, end: datetime = NOW + DAY
) -> Credential:
    """Return a certificate that an authority has signed."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = authority.certificate.subject
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), 1, NOW - DAY, end)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return Credential(key, builder.sign(authority.key, hashes.SHA256()))


ONE, TWO = self_signed("one"), self_signed("two")


def runner(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `cmapp keys` and returns its exit code and what it wrote."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cmapp", "keys", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code or 0
        assert isinstance(code, int)
        return (code, *capfd.readouterr())

    return run


def password_files(folder: Path) -> list[object]:
    """Make files with passwords, and return the options that open the keystores of these tests."""
    for name, password in (("pass", PASSWORD), ("keypass", OTHER)):
        (folder / name).write_text(f"{password}\nmore lines do not count\n")
        (folder / name).chmod(0o600)
    return ["--storepass-file", folder / "pass"]


def kept(
    path: Path, own: Credential, *trusted: tuple[str, x509.Certificate], chain: list[x509.Certificate] | None = None
) -> Path:
    """Write a JKS keystore with one key, whose alias is `own`, and those who are trusted."""
    key = ("own", own.key, chain or [own.certificate], PASSWORD)
    path.write_bytes(jks.write(PASSWORD, now=0, key=key, trusted=trusted))
    return path


def modes(folder: Path) -> dict[str, int]:
    """Return all files below a folder with their rights."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in found}
