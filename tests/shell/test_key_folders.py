"""Key folders as the daemons see them: what is wrong is named, before there is a peer."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cmapp.errors import SettingsError
from cmapp.keys.authority import Credential, issue, make_authority
from cmapp.keys.keystore import write_credential
from cmapp.net.identity import Identity, Role
from cmapp.net.keyfolder import check_keys, days_left
from cmapp.net.tls import client_context, server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
HOST, GUEST = Identity(Role.HOST, "n1"), Identity(Role.GUEST, "vm1")
SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
SERVER, CODE = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING


def forge(authority: Credential, purpose: x509.ObjectIdentifier, *uris: str) -> Credential:
    """Sign a certificate that cmapp itself would never issue."""
    key, names = ec.generate_private_key(ec.SECP256R1()), [*map(x509.UniformResourceIdentifier, uris)]
    builder = (
        x509.CertificateBuilder(authority.certificate.subject, SUBJECT, key.public_key(), 1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName([*names, x509.DNSName("vm1")]), critical=False)
    )
    return Credential(key, builder.sign(authority.key, hashes.SHA256()))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of key folders, each named after what is wrong with it."""
    root = tmp_path_factory.mktemp("keys")
    authority = make_authority(None, days=30, now=NOW - 20 * DAY)
    other = make_authority("other", days=30, now=NOW)
    old = make_authority("old", days=3, now=NOW - 9 * DAY)
    guest = issue(authority, GUEST, days=9, now=NOW)
    made = {
        "guest": (guest, authority),
        "host": (issue(authority, HOST, days=9, now=NOW), authority),
        "guest-expired": (issue(authority, GUEST, days=2, now=NOW - 9 * DAY), authority),
        "host-expired": (issue(authority, HOST, days=2, now=NOW - 9 * DAY), authority),
        "host-early": (issue(authority, HOST, days=2, now=NOW + DAY), authority),
        "host-stranger": (issue(other, HOST, days=9, now=NOW), authority),
        "guest-trusts-another": (guest, other),
        "guest-of-old": (forge(old, SERVER, "cmapp://guest/vm1"), old),
        "host-by-a-leaf": (issue(guest, HOST, days=9, now=NOW), authority),
        "host-to-serve": (forge(authority, SERVER, "cmapp://host/n1"), authority),
        "host-to-sign-code": (forge(authority, CODE, "cmapp://host/n1"), authority),
        "guest-without-role": (forge(authority, SERVER), authority),
        "guest-of-two-roles": (forge(authority, SERVER, "cmapp://guest/a", "cmapp://host/a"), authority),
    }
    for name, (credential, trusted) in made.items():
        write_credential(root / name, credential, trusted, force=False)
    return root


def copied(folders: Path, name: str, to: Path) -> Path:
    """Copy a key folder, to be spoiled."""
    to.mkdir()
    for file in (folders / name).iterdir():
        (to / file.name).write_bytes(file.read_bytes())
        (to / file.name).chmod(0o600)
    return to


def rewrite(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, passphrase: bytes | None) -> None:
    """Put another key into a key file."""
    lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, lock))


SPOILED = {
    "cert.pem missing": "cannot read {}/cert.pem: No such file or directory; ",
    "key.pem missing": "cannot read {}/key.pem: No such file or directory; ",
    "ca.pem missing": "cannot read {}/ca.pem: No such file or directory; ",
    "ca.pem folder": "cannot read {}/ca.pem: Is a directory; ",
    "cert.pem empty": "{}/cert.pem holds no certificate in PEM format",
    "key.pem empty": "{}/key.pem holds no private key in PEM format",
    "ca.pem empty": "{}/ca.pem holds no certificate in PEM format",
    "cert.pem broken": "{0}/cert.pem cannot be used: ",
    "key.pem broken": "{0}/cert.pem with {0}/key.pem cannot be used: ",
    "ca.pem broken": "{}/ca.pem cannot be used: ",
    "key.pem encrypted": "{}/key.pem is encrypted: ",
    "key.pem other": "{0}/key.pem is not the key of {0}/cert.pem: ",
}


def spoil(path: Path, how: str) -> None:
    """Make a file of a key folder unusable."""
    if how in {"missing", "folder"}:
        path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "broken":
        first, *_rest, last = path.read_text().splitlines()
        path.write_text(f"{first}\nAAAA\n{last}\n")
    elif how in {"encrypted", "other"}:
        rewrite(path, ec.generate_private_key(ec.SECP256R1()), b"secret" if how == "encrypted" else None)


@pytest.mark.parametrize("make", [server_context, client_context])
@pytest.mark.parametrize("spoiled", SPOILED)
def test_an_unusable_key_folder_is_explained(
    folders: Path, tmp_path: Path, spoiled: str, make: Callable[[str], ssl.SSLContext]
) -> None:
    """The file at fault is named, --check says the same, and nobody is asked for a passphrase."""
    keys = copied(folders, "guest", tmp_path / "keys")
    name, how = spoiled.split()
    spoil(keys / name, how)
    with pytest.raises(SettingsError) as refusal:
        make(str(keys))
    assert str(refusal.value).startswith(SPOILED[spoiled].format(keys))
    assert str(refusal.value) in check_keys(str(keys), Role.GUEST)


def test_a_key_folder_that_may_not_be_read_is_explained(folders: Path, tmp_path: Path) -> None:
    """A daemon that runs as the wrong user says so."""
    keys, user = copied(folders, "guest", tmp_path / "keys"), os.geteuid()
    keys.chmod(0)
    os.seteuid(user or 65534)
    try:
        with pytest.raises(SettingsError) as refusal:
            server_context(str(keys))
    finally:
        os.seteuid(user)
        keys.chmod(0o700)
    assert str(refusal.value).startswith(f"cannot read {keys}/cert.pem: this user may not; ")


def test_every_missing_file_is_checked(tmp_path: Path) -> None:
    """One run of --check tells all."""
    assert [line.split(":")[0] for line in check_keys(str(tmp_path), Role.HOST)] == [
        f"cannot read {tmp_path}/{name}" for name in ("cert.pem", "key.pem", "ca.pem")
    ]


# A key folder, the role to use it in, and how each line that --check has to say goes on after the folder.
CHECKS = [
    ("guest", Role.GUEST, []),
    ("host", Role.HOST, []),
    ("guest", Role.HOST, ["/cert.pem is for guest vm1, but must be a host's: "]),
    ("host", Role.GUEST, ["/cert.pem is for host n1, but must be a guest's: "]),
    ("host-to-serve", Role.HOST, ["/cert.pem may not be used by a host (extended key usage): "]),
    ("host-to-sign-code", Role.HOST, ["/cert.pem may not be used by a host (extended key usage): "]),
    ("guest-expired", Role.GUEST, ["/cert.pem has expired on "]),
    ("host-expired", Role.GUEST, ["/cert.pem is for host n1, ", "/cert.pem has expired on "]),
    ("host-early", Role.HOST, ["/cert.pem is not valid before "]),
    ("guest-of-old", Role.GUEST, ["/ca.pem cannot be used: certificate has expired"]),
    ("host-stranger", Role.HOST, ["/cert.pem is not vouched for by "]),
    ("guest-trusts-another", Role.GUEST, ["/cert.pem is not vouched for by "]),
    ("host-by-a-leaf", Role.HOST, ["/cert.pem is not vouched for by "]),
    ("guest-without-role", Role.GUEST, ["/cert.pem bears no role URI, not one: "]),
    ("guest-of-two-roles", Role.GUEST, ["/cert.pem bears 2 role URIs, not one: "]),
]


@pytest.mark.parametrize(("name", "role", "expected"), CHECKS, ids=[f"{c[0]}-as-{c[1].value}" for c in CHECKS])
def test_keys_are_checked(folders: Path, name: str, role: Role, expected: list[str]) -> None:
    """What a peer would refuse is known before there is a peer, all of it at once."""
    keys = str(folders / name)
    problems = check_keys(keys, role)
    assert len(problems) == len(expected), problems
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(keys + start)


def test_an_open_key_is_checked(folders: Path, tmp_path: Path) -> None:
    """A key that others can read is said to be, beside what else is wrong."""
    keys = copied(folders, "guest-expired", tmp_path / "keys")
    (keys / "key.pem").chmod(0o640)
    mode, expired = check_keys(str(keys), Role.GUEST)
    assert mode == f"{keys}/key.pem is open to others than its owner: chmod 600 {keys}/key.pem"
    assert "has expired on " in expired


def test_the_days_that_are_left_are_counted(folders: Path) -> None:
    """They are negative once the certificate has expired."""
    assert days_left(str(folders / "guest")) == pytest.approx(9, abs=0.1)
    assert days_left(str(folders / "host-expired")) == pytest.approx(-7, abs=0.1)


def test_a_weak_key_is_refused_in_words(folders: Path, tmp_path: Path) -> None:
    """What OpenSSL calls `ee key too small` is said so that one knows what to do."""
    keys = copied(folders, "guest", tmp_path / "keys")
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - weak on purpose
    builder = x509.CertificateBuilder(SUBJECT, SUBJECT, weak.public_key(), 1)
    certificate = builder.not_valid_before(NOW).not_valid_after(NOW + DAY).sign(weak, hashes.SHA256())
    (keys / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    rewrite(keys / "key.pem", weak, None)
    with pytest.raises(SettingsError, match=r"cert\.pem holds a key that is too weak: issue one with RSA of 2048"):
        server_context(str(keys))
