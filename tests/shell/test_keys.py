"""Keys on disk and the certificates in them: whole, private, and never overwritten by accident."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from cmapp.errors import SettingsError
from cmapp.keys.authority import Credential, issue, make_authority
from cmapp.keys.description import begins, describe, ends
from cmapp.keys.keystore import read_authority, read_certificate, write_authority, write_credential
from cmapp.net.identity import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 2, 28, 12, tzinfo=UTC)
GUEST, HOST = Identity(Role.GUEST, "vm1"), Identity(Role.HOST, "n1")


@pytest.fixture(scope="session")
def authority() -> Credential:
    """Return an authority of a hundred days."""
    return make_authority("the authority", days=100, now=NOW)


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """Create files as most users do."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_an_authority_may_only_sign(authority: Credential) -> None:
    """It is no one's identity, and what it vouches for cannot vouch for others."""
    extensions = authority.certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature
    assert describe(authority.certificate).role == "authority"


@pytest.mark.parametrize(
    ("identity", "purpose"),
    [(GUEST, ExtendedKeyUsageOID.SERVER_AUTH), (HOST, ExtendedKeyUsageOID.CLIENT_AUTH)],
    ids=str,
)
def test_a_certificate_bears_one_role_twice(
    authority: Credential, identity: Identity, purpose: x509.ObjectIdentifier
) -> None:
    """The role is both a URI and the only purpose, and the key may do nothing but prove itself."""
    certificate = issue(authority, identity, sans=["192.0.2.7"], days=9, now=NOW).certificate
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"cmapp://{identity.role.value}/{identity.name}"
    ]
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
    assert (usage.critical, usage.value.digital_signature, usage.value.key_cert_sign) == (True, True, False)
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert describe(certificate).names == (f"DNS {identity.name}", "IP 192.0.2.7")


def test_openssl_verifies_strictly(authority: Credential, tmp_path: Path) -> None:
    """What is issued stands before the strictest reader, key identifiers and all."""
    now = datetime.now(UTC)
    fresh = make_authority(None, days=2, now=now)
    write_credential(tmp_path, issue(fresh, GUEST, days=1, now=now), fresh, force=False)
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "vm1",
         "-CAfile", tmp_path / "ca.pem", tmp_path / "cert.pem"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert authority.certificate.subject != fresh.certificate.subject


def test_two_authorities_have_two_names() -> None:
    """Without a name an authority is called after its key, so that `show` tells them apart."""
    first, second = (describe(make_authority(None, days=1, now=NOW).certificate).who for _ in "12")
    assert first != second


def test_a_certificate_is_valid_at_once_and_ends_with_its_authority(authority: Credential) -> None:
    """A clock that runs five minutes behind does no harm, and nothing outlives what vouches for it."""
    short, long = (issue(authority, GUEST, days=days, now=NOW).certificate for days in (9, 900))
    assert begins(short) == NOW - timedelta(minutes=5)
    assert ends(short) == NOW + timedelta(days=9)
    assert ends(long) == ends(authority.certificate) == NOW + timedelta(days=100)


def test_an_expired_authority_issues_nothing(authority: Credential) -> None:
    """What it would issue could never be used."""
    with pytest.raises(SettingsError, match=r"^the authority has expired on 2026-06-08: "):
        issue(authority, GUEST, days=1, now=NOW + timedelta(days=100))


WRONG_NAMES = [
    "",
    "-vm1",
    ".vm1",
    "vm1/..",
    "*",
    "vm 1",
    "vm1\n",
    "vä",
    "::1",
    65 * "n",
    "a..b",
    "1.2.3",
    "a.",
]


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_a_wrong_name_is_refused(authority: Credential, name: str) -> None:
    """A name is safe in a path, in a URI and in a handshake."""
    with pytest.raises(SettingsError) as refusal:
        issue(authority, Identity(Role.GUEST, name), days=1, now=NOW)
    assert str(refusal.value).startswith(repr(name))


@pytest.mark.parametrize("san", ["", "*.example.org", "vm 1", "fe80::1%eth0", "cmapp://host/n1", "a,b"])
def test_a_wrong_alternative_name_is_refused(authority: Credential, san: str) -> None:
    """Nothing gets into a certificate that no manager could call."""
    with pytest.raises(SettingsError, match="is neither a host name nor an IP address"):
        issue(authority, GUEST, sans=[san], days=1, now=NOW)


@pytest.mark.parametrize("name", ["", "two\nlines", 65 * "n"])
def test_a_wrong_name_of_an_authority_is_refused(name: str) -> None:
    """A name that a certificate cannot hold, or that would forge a line, is refused."""
    with pytest.raises(SettingsError, match="cannot name an authority"):
        make_authority(name, days=1, now=NOW)


def test_an_address_may_be_a_name(authority: Credential) -> None:
    """A guest without a name in DNS goes by its address, and a name is not borne twice."""
    certificate = issue(authority, Identity(Role.GUEST, "192.0.2.7"), sans=["192.0.2.7"], days=1, now=NOW)
    assert describe(certificate.certificate).names == ("IP 192.0.2.7",)


@pytest.mark.usefixtures("usual_umask")
def test_keys_are_private(authority: Credential, tmp_path: Path) -> None:
    """Private keys are their owner's alone, and what stays behind is exactly what was promised."""
    store = tmp_path / "new" / "store"
    write_authority(store, authority, force=False)
    write_credential(store / "guest" / "vm1", issue(authority, GUEST, days=1, now=NOW), authority, force=False)
    modes = {
        str(path.relative_to(store)): stat.S_IMODE(path.stat().st_mode)
        for path in (store, *store.rglob("*"))
        if path.name != "guest"
    }
    assert modes == {
        ".": 0o700,
        "ca-key.pem": 0o600,
        "ca.pem": 0o644,
        "guest/vm1": 0o700,
        "guest/vm1/ca.pem": 0o644,
        "guest/vm1/cert.pem": 0o644,
        "guest/vm1/key.pem": 0o600,
    }


def test_a_key_is_private_from_its_first_instant(authority: Credential, tmp_path: Path) -> None:
    """No one who watches the folder ever sees a key that others may open, however the umask stands."""
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        over = False
        while not over:
            over = done.is_set()  # look once more after the last write
            for entry in os.scandir(tmp_path):
                if "key" in entry.name:
                    try:
                        seen.add(stat.S_IMODE(entry.stat().st_mode))
                    except FileNotFoundError:
                        continue

    before = os.umask(0)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(20):
            write_authority(tmp_path, authority, force=True)
    finally:
        done.set()
        watcher.join()
        os.umask(before)
    assert seen == {0o600}


def test_an_authority_is_read_as_it_was_written(authority: Credential, tmp_path: Path) -> None:
    """Key and certificate come back."""
    write_authority(tmp_path, authority, force=False)
    read = read_authority(tmp_path)
    assert read.certificate == authority.certificate
    assert read.key.private_numbers() == authority.key.private_numbers()


@pytest.mark.parametrize("there", ["ca-key.pem", "ca.pem"])
def test_nothing_is_overwritten_without_force(authority: Credential, tmp_path: Path, there: str) -> None:
    """What is there stays as it is, even a link to nowhere, and nothing is put beside it."""
    (tmp_path / there).symlink_to("nowhere")
    with pytest.raises(SettingsError) as refusal:
        write_authority(tmp_path, authority, force=False)
    assert str(refusal.value) == f"{tmp_path / there} is there already: use --force to replace it"
    assert os.listdir(tmp_path) == [there]  # noqa: PTH208 - names are enough
    write_authority(tmp_path, authority, force=True)
    assert read_authority(tmp_path).certificate == authority.certificate
    assert not (tmp_path / there).is_symlink()


def test_only_one_of_many_makers_wins(tmp_path: Path) -> None:
    """Administrators who make the same authority at the same time do not mix their keys."""
    makers = 4
    ready = threading.Barrier(makers)
    refusals: list[str] = []

    def make() -> None:
        made = make_authority(None, days=1, now=NOW)
        ready.wait()
        try:
            write_authority(tmp_path, made, force=False)
        except SettingsError as refusal:
            refusals.append(str(refusal))

    threads = [threading.Thread(target=make) for _ in range(makers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refusals) == makers - 1
    assert read_authority(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_leaves_everything_as_it_was(authority: Credential, tmp_path: Path) -> None:
    """A disk that is full in the middle costs neither the old keys nor a half of the new ones."""
    write_authority(tmp_path, authority, force=False)
    other = make_authority("other", days=1, now=NOW)
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The key fits into so much of a disk, and the certificate does not; Python ignores SIGXFSZ.
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(SettingsError) as refusal:
            write_authority(tmp_path, other, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_soft, hard))
    assert str(refusal.value) == f"cannot write {tmp_path}/ca.pem: File too large"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca-key.pem", "ca.pem"]
    assert read_authority(tmp_path).certificate == authority.certificate


def spoil(folder: Path, how: str) -> None:
    """Make the authority in `folder` unusable."""
    key, form = ec.generate_private_key(ec.SECP256R1()), serialization.PrivateFormat.PKCS8
    lock = serialization.BestAvailableEncryption(b"x") if how == "encrypted" else serialization.NoEncryption()
    path = folder / "ca-key.pem"
    if how == "missing":
        path.unlink()
    elif how == "no key":
        path.write_text("no key")
    else:
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, lock))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("missing", "cannot read {}: No such file or directory"),
        ("no key", "{} holds no private key to be used: restore it from a backup"),
        ("encrypted", "{} is encrypted: store it without a passphrase"),
        ("other", "{} is not the key of "),
    ],
)
def test_an_unusable_authority_is_explained(authority: Credential, tmp_path: Path, how: str, sentence: str) -> None:
    """The file at fault is named, with what to do."""
    write_authority(tmp_path, authority, force=False)
    spoil(tmp_path, how)
    with pytest.raises(SettingsError) as refusal:
        read_authority(tmp_path)
    assert str(refusal.value).startswith(sentence.format(tmp_path / "ca-key.pem"))


def test_a_certificate_is_found_in_its_folder(authority: Credential, tmp_path: Path) -> None:
    """A key folder stands for its certificate, and an authority's folder for the authority's."""
    store, keys = tmp_path / "store", tmp_path / "keys"
    issued = issue(authority, GUEST, days=1, now=NOW)
    write_authority(store, authority, force=False)
    write_credential(keys, issued, authority, force=False)
    assert read_certificate(store) == read_certificate(keys / "ca.pem") == authority.certificate
    assert read_certificate(keys) == read_certificate(keys / "cert.pem") == issued.certificate
