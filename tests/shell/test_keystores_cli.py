"""`cmapp keys import`: what is taken from a keystore, what is not, and how files and passwords are kept."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from cmapp.cli.keystores import PASSWORD_LIMIT
from cmapp.keys import jks, keystore, pkcs12
from cmapp.keys.authority import issue, make_authority
from cmapp.keys.store import FILE_LIMIT
from cmapp.net.identity import Identity, Role
from tests.shell.keystores_bed import (
    AUTHORITY,
    DAY,
    HOST,
    NOW,
    ONE,
    OTHER,
    PASSWORD,
    TWO,
    kept,
    modes,
    password_files,
    runner,
    self_signed,
    signed_by,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.shell.keystores_bed import Run

OLD = make_authority("an old authority", days=1, now=NOW - 9 * DAY)
GUEST = issue(AUTHORITY, Identity(Role.GUEST, "vm1"), days=9, now=NOW)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `cmapp keys`."""
    return runner(monkeypatch, capfd)


@pytest.fixture
def passwords(tmp_path: Path) -> list[object]:
    """Return the options that open the keystores."""
    return password_files(tmp_path)


def test_a_key_folder_is_made_of_a_keystore(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """The key is its owner's only, the chain is there without its root, and that is whom it trusts."""
    store = kept(tmp_path / "k", HOST, ("ca", AUTHORITY.certificate), chain=[HOST.certificate, AUTHORITY.certificate])
    code, said, error = run("import", store, tmp_path / "keys", *passwords)
    assert (code, error) == (0, "")
    assert said.splitlines()[0].startswith(f"made {tmp_path}/keys for host n1, from own in {store}, valid until ")
    assert said.splitlines()[1].startswith("trusts the authority the authority, SHA-256 ")
    assert modes(tmp_path / "keys") == {"key.pem": 0o600, "cert.pem": 0o644, "ca.pem": 0o644}
    assert keystore.read_certificates(tmp_path / "keys" / "cert.pem") == [HOST.certificate]
    assert keystore.read_certificates(tmp_path / "keys" / "ca.pem") == [AUTHORITY.certificate]
    assert keystore.fits(keystore.read_key(tmp_path / "keys" / "key.pem"), HOST.certificate)


def test_those_between_own_certificate_and_root_are_taken(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """In their order, whatever the order in the keystore, and without strangers and the root."""
    root = make_authority("a root", days=9, now=NOW)
    below = signed_by(root, "below", x509.BasicConstraints(ca=True, path_length=0))
    own = issue(below, Identity(Role.HOST, "n1"), days=9, now=NOW)
    jumbled = [root.certificate, below.certificate, TWO.certificate, own.certificate]
    store = kept(tmp_path / "k", own, ("root", root.certificate), ("below", below.certificate), chain=jumbled)
    code, said, _ = run("import", store, tmp_path / "keys", *passwords)
    assert code == 0
    assert keystore.read_certificates(tmp_path / "keys" / "cert.pem") == [own.certificate, below.certificate]
    assert keystore.read_certificates(tmp_path / "keys" / "ca.pem") == [root.certificate]
    assert "left out below: it is an intermediate's: trust a root, which issued it" in said


def test_an_expired_issuer_is_refused(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """A peer would not believe the chain."""
    root = make_authority("a root", days=9, now=NOW)
    old = signed_by(root, "below", x509.BasicConstraints(ca=True, path_length=0), end=NOW - DAY / 2)
    own = signed_by(old, "n1")
    store = kept(tmp_path / "k", own, ("root", root.certificate), chain=[own.certificate, old.certificate])
    code, _, error = run("import", store, tmp_path / "keys", *passwords)
    assert code == 1
    assert "CN=below, which issued the certificate of own, is valid from " in error


def test_a_self_signed_pair_is_pinned(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """Each trusted peer gets a name, and what is not named is not trusted."""
    peers = [("VmOne", TWO.certificate), ("b", self_signed("three").certificate), ("c", GUEST.certificate)]
    store = kept(tmp_path / "k", ONE, *peers)
    code, said, _ = run("import", store, tmp_path / "keys", *passwords, "--pin-guest", "vm1=vmone")
    assert code == 0
    assert modes(tmp_path / "keys") == {"key.pem": 0o600, "cert.pem": 0o644, "peers/guest/vm1.pem": 0o644}
    assert keystore.read_certificates(tmp_path / "keys" / "peers" / "guest" / "vm1.pem") == [TWO.certificate]
    assert "trusts guest vm1: CN=two, SHA-256 " in said
    assert "left out b: it is no authority's (CA:TRUE): pin it with --pin-guest or --pin-host" in said
    assert "left out c: it is no authority's" in said
    assert f"bears no role URI: it is of use only where {tmp_path}/keys/cert.pem is pinned" in said


def test_a_peer_may_have_two_certificates(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """The old one and its successor, under one name."""
    store = kept(tmp_path / "k", ONE, ("a", TWO.certificate), ("b", self_signed("two").certificate))
    pins = ["--pin-host", "n1=a", "--pin-host", "n1=b"]
    assert run("import", store, tmp_path / "keys", *passwords, *pins)[0] == 0
    assert len(keystore.read_certificates(tmp_path / "keys" / "peers" / "host" / "n1.pem")) == 2


def test_each_password_has_a_file(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """The store's, the key's and the truststore's."""
    key = ("own", HOST.key, [HOST.certificate], OTHER)
    (tmp_path / "k").write_bytes(jks.write(PASSWORD, now=0, key=key))
    (tmp_path / "t").write_bytes(pkcs12.write_truststore([("ca", AUTHORITY.certificate)], OTHER))
    command = ["import", tmp_path / "k", tmp_path / "keys", *passwords, "--truststore", tmp_path / "t"]
    assert (
        "holds a key that has another password: give that with --keypass-file"
        in run(*command, "--trustpass-file", tmp_path / "keypass")[2]
    )
    command += ["--keypass-file", tmp_path / "keypass"]
    assert f"{tmp_path}/t cannot be opened: the store password is wrong" in run(*command)[2]
    assert not (tmp_path / "keys").exists()
    assert run(*command, "--trustpass-file", tmp_path / "keypass")[0] == 0


WEAK = "has a weak or unsuitable key "
EXPIRED = self_signed("old", begin=NOW - 9 * DAY, end=NOW - DAY)
SIGNING = x509.KeyUsage(*(name == 5 for name in range(9)))
CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
NAMED = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("cmapp://host/n1")])
# A certificate, what keeps it from being a host's own, and what keeps it from being pinned as a guest.
UNFIT = {
    "expired": (EXPIRED, " has expired on ", " has expired on "),
    "early": (self_signed("new", begin=NOW + DAY, end=NOW + 2 * DAY), " is not valid before ", " is not valid before "),
    "rsa-1024": (self_signed("rsa", key=rsa.generate_private_key(65537, 1024)), WEAK, WEAK),  # noqa: S505
    "curve": (self_signed("k1", key=ec.generate_private_key(ec.SECP256K1())), WEAK, WEAK),
    "authority": (AUTHORITY, "is an authority's (CA:TRUE)", "is an authority's (CA:TRUE)"),
    "signs": (self_signed("signs", SIGNING), "may sign certificates", "may sign certificates"),
    "purpose": (self_signed("client", CLIENT), None, "may not be used by a guest (extended key usage)"),
    "role": (self_signed("n1", NAMED), None, "says that it is host n1's, not guest vm1's"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_what_is_unfit_is_not_taken(run: Run, passwords: list[object], tmp_path: Path, case: str) -> None:
    """A sentence says why, and no file is left."""
    credential, own, pinned = UNFIT[case]
    if own:
        store = kept(tmp_path / "k", credential, ("vm1", TWO.certificate))
        code, _, error = run("import", store, tmp_path / "keys", *passwords, "--pin-guest", "vm1")
        assert (code, error.count("\n")) == (1, 1)
        assert f"cannot import {store}: the certificate of own {own.strip()}" in error
    if pinned:
        store = kept(tmp_path / "k", ONE, ("b", credential.certificate))
        code, _, error = run("import", store, tmp_path / "keys", *passwords, "--pin-guest", "vm1=b")
        assert (code, error.count("\n")) == (1, 1)
        assert f"cannot import {store}: b, to be pinned as guest vm1, {pinned.strip()}" in error
    assert not (tmp_path / "keys").exists()


def test_an_authority_that_is_unfit_is_left_out(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """Others beside it are taken; with none left, nobody would be trusted, and that is no key folder."""
    store = kept(tmp_path / "k", HOST, ("old", OLD.certificate), ("ca", AUTHORITY.certificate))
    assert "left out old: it has expired on " in run("import", store, tmp_path / "keys", *passwords)[1]
    store = kept(tmp_path / "k2", HOST, ("old", OLD.certificate))
    code, _, error = run("import", store, tmp_path / "keys2", *passwords)
    assert code == 1
    assert "nobody would be trusted: name a --truststore, or pin a peer; old has expired on " in error


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["import", "{}/none", "{}/keys"], 1, "cannot read {}/none: No such file or directory"),
        (["import", "{}", "{}/keys"], 1, "cannot read {}: Is a directory"),
        (["import", "{}/text", "{}/keys"], 1, "{}/text is no keystore that can be read: convert it with keytool"),
        (["import", "{}/jceks", "{}/keys"], 1, "{}/jceks is a JCEKS keystore: convert it with keytool"),
        (["import", "{}/pem", "{}/keys"], 1, "{}/pem is in PEM format, as the files of a key folder are"),
        (["import", "{}/large", "{}/keys"], 1, f"more than {FILE_LIMIT} bytes"),
        (["import", "{}/two", "{}/keys"], 1, "no private key: is it a truststore?"),
        (["import", "{}/k", "{}/keys", "--alias", "x"], 1, "it holds no private key called x: choose one with --alias"),
        (["import", "{}/k", "{}/keys", "--pin-guest", "vm1"], 1, "vm1, to be pinned as guest vm1, is no trusted"),
        (["import", "{}/k", "{}/keys", "--pin-guest", "../x=ca"], 2, "is not NAME=ALIAS"),
        (["import", "{}/k", "{}/keys", "--pin-host", "n1="], 2, "is not NAME=ALIAS"),
        (["import", "{}/k", "{}/keys", "--keypass-file", "{}/none"], 1, "cannot read {}/none"),
        (["export", "{}/none", "{}/out"], 1, "cannot read {}/none/cert.pem"),
        (["export", "{}/k", "{}/out", "--format", "bks"], 2, "bks"),
        (["export", "{}/k", "{}/out", "--alias", ""], 2, "cannot be an alias"),
        (["export", "{}/k", "{}/out", "--keypass-file", "{}/pass"], 2, "--keypass-file is for --format jks"),
    ],
)
def test_misuse(  # noqa: PLR0913, PLR0917 - a table
    run: Run, passwords: list[object], tmp_path: Path, arguments: list[str], code: int, reason: str
) -> None:
    """What is wrong is told in one line, and nothing is left behind."""
    kept(tmp_path / "k", HOST, ("ca", AUTHORITY.certificate))
    (tmp_path / "two").write_bytes(jks.write(PASSWORD, now=0, trusted=[("ca", AUTHORITY.certificate)]))
    (tmp_path / "text").write_text("a keystore")
    (tmp_path / "jceks").write_bytes(bytes.fromhex("CECECECE00000002"))
    (tmp_path / "pem").write_text("-----BEGIN CERTIFICATE-----")
    (tmp_path / "large").write_bytes(b"\x30" * (FILE_LIMIT + 1))
    before = sorted(tmp_path.rglob("*"))
    ended, _, error = run(*(word.format(tmp_path) for word in arguments), *passwords)
    assert (ended, error.count("\n")) == (code, 1)
    assert error.startswith("cmapp: ")
    assert reason.format(tmp_path) in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"", 0o600, "is no password: it has to have 1 to 1024 characters"),
        (b"x" * (PASSWORD_LIMIT + 1), 0o600, "is no password: it has to have 1 to 1024 characters"),
        (b"\xff\n", 0o600, "is not text in UTF-8"),
        (b"changeit\n", 0o640, "is open to others than its owner, and holds a password: chmod 600"),
    ],
)
def test_a_password_file_is_looked_at(run: Run, tmp_path: Path, content: bytes, mode: int, reason: str) -> None:
    """What cannot be one is told, and who else could read it."""
    (tmp_path / "pass").write_bytes(content)
    (tmp_path / "pass").chmod(mode)
    store = kept(tmp_path / "k", HOST, ("ca", AUTHORITY.certificate))
    code, _, error = run("import", store, tmp_path / "keys", "--storepass-file", tmp_path / "pass")
    assert code == 1
    assert reason in error


def test_nothing_is_overwritten(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """Unless --force says so; then nobody is trusted any more who is not by the new keystore."""
    first = kept(tmp_path / "a", HOST, ("ca", AUTHORITY.certificate), ("two", TWO.certificate))
    second = kept(tmp_path / "b", ONE, ("two", TWO.certificate))
    keys = tmp_path / "keys"
    assert run("import", first, keys, *passwords, "--pin-guest", "vm1=two")[0] == 0
    before = {path: path.read_bytes() for path in keys.rglob("*.pem")}
    again = ["import", second, keys, *passwords, "--pin-guest", "vm2=two"]
    code, _, error = run(*again)
    assert code == 1
    assert "--force" in error
    assert {path: path.read_bytes() for path in keys.rglob("*.pem")} == before
    assert run(*again, "--force")[0] == 0
    assert set(modes(keys)) == {"key.pem", "cert.pem", "peers/guest/vm2.pem"}


def test_whom_a_folder_trusts_already_is_not_kept_in_silence(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """A folder without a key, but with an authority: whoever put that there would be trusted too."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "ca.pem").write_text("somebody's")
    store = kept(tmp_path / "k", ONE, ("two", TWO.certificate))
    code, _, error = run("import", store, tmp_path / "keys", *passwords, "--pin-guest", "vm1=two")
    assert code == 1
    assert f"{tmp_path}/keys/ca.pem would be trusted too: " in error
    assert set(modes(tmp_path / "keys")) == {"ca.pem"}


def test_without_a_terminal_nobody_is_asked(tmp_path: Path) -> None:
    """A command that runs unattended ends and says which option is missing."""
    kept(tmp_path / "k", HOST, ("ca", AUTHORITY.certificate))
    command = [sys.executable, "-c", "from cmapp.cli.cmapp import main; main()"]
    done = subprocess.run(
        [*command, "keys", "import", tmp_path / "k", tmp_path / "keys"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "there is no terminal to ask for the password of " in done.stderr
    assert done.stderr.endswith("use --storepass-file\n")
