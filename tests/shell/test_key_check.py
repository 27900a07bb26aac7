"""`cmapp keys check`: whatever a peer would turn away is told before, a sentence each, with what to do."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cmapp.keys import pem
from cmapp.keys.authority import Credential, entitlements, issue, make_authority
from cmapp.keys.keystore import read_lists, write_authority, write_credential
from cmapp.keys.revocation import make_list
from cmapp.net.identity import Identity, Role
from tests.shell.keys_bed import done, keys, meet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
VM1, N1 = Identity(Role.GUEST, "vm1"), Identity(Role.HOST, "n1")


@pytest.fixture(scope="module")
def authority() -> Credential:
    """Return an authority of a hundred days."""
    return make_authority("ours", days=100, now=NOW)


@pytest.fixture
def folder(authority: Credential, tmp_path: Path) -> Path:
    """Return a key folder of vm1 in which nothing is wrong."""
    write_credential(tmp_path / "vm1", issue(authority, VM1, days=50, now=NOW), authority, force=False)
    assert keys("check", tmp_path / "vm1") == (0, f"{tmp_path}/vm1 is in order: guest vm1, 50 days left\n", "")
    return tmp_path / "vm1"


def checked(folder: Path, *options: object) -> list[str]:
    """Check a folder with which something is wrong, and return what is."""
    code, out, err = keys("check", folder, *options)
    assert (code, err) == (1, "")
    return out.splitlines()


def other(folder: Path, authority: Credential) -> None:
    """Put another certificate into the folder, of another key."""
    made = issue(authority, VM1, days=50, now=NOW).certificate
    (folder / "cert.pem").write_bytes(pem.written([made]))


def listed(folder: Path, authority: Credential, *, days: int = 100, start: datetime = NOW, own: bool = False) -> None:
    """Put a revocation list into the folder."""
    named = pem.certificates((folder / "cert.pem").read_bytes()) if own else []
    (folder / "crl.pem").write_bytes(pem.written([make_list(authority, None, named, days=days, now=start)]))


def strange(folder: Path, authority: Credential) -> None:
    """Have the folder trust an authority of which it has no list."""
    listed(folder, authority)
    both = [authority.certificate, make_authority("new", days=100, now=NOW).certificate]
    (folder / "ca.pem").write_bytes(pem.written(both))


def beside(folder: Path, authority: Credential, days: int, start: datetime) -> None:
    """Have the folder trust a second authority."""
    second = make_authority("second", days=days, now=start).certificate
    (folder / "ca.pem").write_bytes(pem.written([authority.certificate, second]))


def pinned(folder: Path, name: str, days: int, start: datetime) -> None:
    """Have the folder pin a self-signed certificate of a host."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 7, start, start + days * DAY)
    for extension, critical in entitlements(Identity(Role.HOST, "n1"), ()):
        builder = builder.add_extension(extension, critical=critical)
    (folder / "peers" / "host").mkdir(parents=True)
    (folder / "peers" / "host" / name).write_bytes(pem.written([builder.sign(key, hashes.SHA256())]))


LIST = "the list of ours in {}/crl.pem"
# What is done to a key folder, and how what is said of it begins; {} is the folder.
DAMAGE: dict[str, tuple[Callable[[Path, Credential], object], list[str]]] = {
    "open key": (
        lambda folder, _: (folder / "key.pem").chmod(0o644),
        ["{}/key.pem is open to others than its owner: chmod 600 {}/key.pem"],
    ),
    "no key": (
        lambda folder, _: (folder / "key.pem").unlink(),
        ["cannot read {}/key.pem: No such "],
    ),
    "no certificate": (
        lambda folder, _: (folder / "cert.pem").unlink(),
        ["cannot read {}/cert.pem: No such file or directory; "],
    ),
    "no authority": (lambda folder, _: (folder / "ca.pem").unlink(), ["cannot read {}/ca.pem: No such file or dir"]),
    "another's certificate": (other, ["{}/key.pem is not the key of {}/cert.pem: "]),
    "own certificate revoked": (
        lambda folder, authority: listed(folder, authority, own=True),
        ["{}/cert.pem has been revoked by {}/crl.pem: issue a new one, with a new key"],
    ),
    "list expired": (
        lambda folder, authority: listed(folder, authority, days=1, start=NOW - 9 * DAY),
        [f"{LIST} has expired on "],
    ),
    "list late": (
        lambda folder, authority: listed(folder, authority, days=7, start=NOW - 4 * DAY),
        [f"{LIST} expires in 3 days, and then nobody is let in: put a newer one there"],
    ),
    "list missing": (strange, ["{}/crl.pem has no list of the authority new, so nobody of it is let in: "]),
    "list broken": (lambda folder, _: (folder / "crl.pem").write_text("x"), ["{}/crl.pem holds no revocation list"]),
    "authority soon": (
        lambda folder, authority: beside(folder, authority, 9, NOW),
        ["the authority second in {}/ca.pem expires in 9 days: make another and trust both, "],
    ),
    "authority expired": (
        lambda folder, authority: beside(folder, authority, 2, NOW - 9 * DAY),
        ["the authority second in {}/ca.pem has expired on "],
    ),
    "pin soon": (
        lambda folder, _: pinned(folder, "n1.pem", 9, NOW),
        ["{}/peers/host/n1.pem expires in 9 days: pin the new one with 'cmapp keys pin'"],
    ),
    "pin expired": (
        lambda folder, _: pinned(folder, "n1.pem", 2, NOW - 9 * DAY),
        ["{}/peers/host/n1.pem has expired on "],
    ),
    "pin misnamed": (
        lambda folder, _: pinned(folder, "n 1.pem", 90, NOW),
        ["{}/peers/host/n 1.pem is named after nobody: call it NAME.pem after the host"],
    ),
    "pin of another": (
        lambda folder, _: pinned(folder, "n2.pem", 90, NOW),
        ["{}/peers/host/n2.pem says that it is host n1's, not host n2's: "],
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_is_told(folder: Path, authority: Credential, damage: str) -> None:
    """One sentence each names the file and says what to do, and no more is said than is wrong."""
    spoil, expected = DAMAGE[damage]
    spoil(folder, authority)
    told = checked(folder)
    for line, start in zip(told, expected, strict=True):
        assert line.startswith(start.replace("{}", str(folder))), line


def test_a_certificate_that_expires_soon_is_a_problem(folder: Path) -> None:
    """How soon is for the administrator to say; a monitoring system looks at the exit code."""
    assert checked(folder, "--days", 60) == [
        f"{folder}/cert.pem expires in 50 days: renew it with 'cmapp keys renew'",
    ]
    assert keys("check", folder, "--days", 40)[0] == 0


def test_a_short_list_is_no_problem_at_first(folder: Path, authority: Credential) -> None:
    """A list that is made for a week is not called late on the day that it was made."""
    listed(folder, authority, days=7)
    assert keys("check", folder)[0] == 0


def test_the_wrong_role_is_told(folder: Path) -> None:
    """A folder that landed on the wrong side is found there."""
    assert checked(folder, "host") == [f"{folder}/cert.pem is for guest vm1, but must be a host's: use that key folder"]
    assert keys("check", folder, "guest")[0] == 0


def test_all_that_is_wrong_is_told_at_once(folder: Path, authority: Credential) -> None:
    """Nobody has to run it three times."""
    (folder / "key.pem").chmod(0o644)
    beside(folder, authority, 2, NOW - 9 * DAY)
    listed(folder, authority, own=True)
    told = "\n".join(checked(folder))
    for word in ("is open to others", "has been revoked", "second in", "has no list of the authority second"):
        assert word in told


def test_what_check_says_of_a_list_is_so(folder: Path, authority: Credential, tmp_path: Path) -> None:
    """An authority without a list is refused indeed, and let in once there is one."""
    new = make_authority("new", days=100, now=NOW)
    write_authority(tmp_path / "new", new, force=False)
    write_credential(tmp_path / "n1", issue(new, N1, days=9, now=NOW), new, force=False)
    done("trust", tmp_path / "n1", folder / "ca.pem")
    done("trust", folder, tmp_path / "new")
    assert meet(folder, tmp_path / "n1") == (VM1, N1)
    listed(folder, authority)
    assert "has no list of the authority new, so nobody of it is let in" in checked(folder)[0]
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get certificate CRL"):
        meet(folder, tmp_path / "n1")
    done("revoke", tmp_path / "new")
    done("trust", folder, tmp_path / "new")
    assert len(read_lists(folder / "crl.pem")) == 2
    assert meet(folder, tmp_path / "n1") == (VM1, N1)


def test_nothing_in_a_folder_forges_a_line(folder: Path) -> None:
    """A certificate's name reaches the terminal as it may."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil\nall is well\x1b[2J")])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 7, NOW - 9 * DAY, NOW - DAY)
    made = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    with (folder / "ca.pem").open("ab") as file:
        file.write(pem.written([made.sign(key, hashes.SHA256())]))
    told = "\n".join(checked(folder))
    assert r"evil\nall is well\x1b[2J" in told
    assert "\x1b" not in told
