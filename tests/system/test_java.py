"""Java on either end: keystores that keytool made, and a client on JSSE that knows docs/protocol.md alone."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.java.keytool import CLIENT as SOURCE
from tests.java.keytool import (
    KEY_PASSWORD,
    KINDS,
    PASSWORD,
    Authority,
    client,
    compiled,
    exported,
    generate,
    needs_java,
    trust,
)
from tests.system.commands import CMAPP, run
from tests.system.keys import cmapp
from tests.system.processes import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed
    from tests.system.server import Server

pytestmark = needs_java

LOOPBACK = "127.0.0.1"
SANS = ("IP:127.0.0.1", "DNS:localhost")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is made once, with the passwords of all keystores."""
    made = tmp_path_factory.mktemp("java")
    for name, password in (("pass", PASSWORD), ("keypass", KEY_PASSWORD), ("wrongpass", "not this one")):
        (made / name).write_text(password + "\n")
        (made / name).chmod(0o600)
    return made


@pytest.fixture(scope="module")
def java(folder: Path) -> list[str]:
    """The compiled client."""
    return compiled(folder / "classes")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    """An authority that keytool made."""
    return Authority(folder / "authority", "company")


@pytest.fixture(scope="module")
def guest(folder: Path, authority: Authority) -> Path:
    """The keystore of the guest vm1, which is this machine."""
    return authority.sign(folder / "vm1.p12", "guest", "vm1", sans=SANS)


@pytest.fixture(scope="module")
def host(folder: Path, authority: Authority) -> Path:
    """The keystore of the host node1."""
    return authority.sign(folder / "node1.p12", "host", "node1")


def taken(folder: Path, store: Path, to: Path, *more: object) -> subprocess.CompletedProcess[str]:
    """Have `cmapp keys import` make a key folder of a keystore, and return what became of it."""
    words = ["keys", "import", store, to, "--storepass-file", folder / "pass", *more]
    return run([CMAPP, *map(str, words)])


def imported(folder: Path, store: Path, to: Path, *more: object) -> Path:
    """Return the key folder that is made of a keystore."""
    done = taken(folder, store, to, *more)
    assert (done.returncode, done.stderr) == (0, "")
    return to


def calling(folder: Path, store: Path, server: Server, *more: object) -> list[object]:
    """Return the arguments of a client that trusts and shows what is in a keystore, up to its command."""
    return [
        "--keystore",
        store,
        "--truststore",
        store,
        "--storepass-file",
        folder / "pass",
        "--address",
        server.guest,
        *more,
    ]


# The kind of key and the keystore of a guest and of a host.
PAIRS = {
    "rsa-and-ec": (("rsa", "p12"), ("ec", "jks")),
    "ec-and-ed25519": (("ec", "jks"), ("ed25519", "p12")),
    "ed25519-and-rsa": (("ed25519", "p12"), ("rsa", "jks")),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_keystores_of_keytool_become_key_folders(
    bed: Bed, folder: Path, authority: Authority, tmp_path: Path, pair: str
) -> None:
    """Server and manager work with what keytool made: RSA, EC and Ed25519, PKCS#12 and JKS with a key password."""
    folders = {}
    for role, (kind, form) in zip(("guest", "host"), PAIRS[pair], strict=True):
        own = KEY_PASSWORD if form == "jks" else None
        sans = SANS if role == "guest" else ()
        store = authority.sign(
            tmp_path / f"{role}.{form}", role, f"{role}-{kind}", kind=kind, sans=sans, key_password=own
        )
        more = ["--keypass-file", folder / "keypass"] if own else []
        folders[role] = imported(folder, store, tmp_path / role, *more)
    server = bed.serve(keys=folders["guest"])
    assert bed.run("/bin/sh", "-c", "exit 7", keys=folders["host"]).wait() == 7
    assert f"manager host-{PAIRS[pair][1][0]} " in server.log


@pytest.mark.parametrize("form", ["p12", "jks"])
def test_self_signed_pair(bed: Bed, folder: Path, java: list[str], tmp_path: Path, form: str) -> None:
    """Keys as keytool makes them by default, each trusted by the other, as the original's manual taught."""
    stores = {name: generate(tmp_path / f"{name}.{form}", name) for name in ("vm1", "node1", "stranger")}
    certificates = {name: exported(store, name) for name, store in stores.items()}
    trust(stores["vm1"], node1=certificates["node1"])
    trust(stores["node1"], vm1=certificates["vm1"])
    trust(stores["stranger"], vm1=certificates["vm1"])
    guest = imported(folder, stores["vm1"], tmp_path / "guest", "--pin-host", "node1=node1")
    host = imported(folder, stores["node1"], tmp_path / "host", "--pin-guest", f"{LOOPBACK}=vm1")
    stranger = imported(folder, stores["stranger"], tmp_path / "stranger", "--pin-guest", f"{LOOPBACK}=vm1")
    server = bed.serve(keys=guest)
    assert bed.run("/bin/sh", "-c", "exit 7", keys=host).wait() == 7
    assert "manager node1 " in server.log
    refused = bed.run("/bin/true", keys=stranger)
    assert refused.wait() == 122
    assert "refused our certificate" in refused.last_line
    options = calling(folder, stores["node1"], server, "--pinned", "vm1")
    ended = client(java, *options, "vm1", "--", "/bin/sh", "-c", "exit 9")
    assert (ended.code, "acknowledged" in ended.said) == (9, True), ended.said


def test_another_certificate_is_not_the_pinned_one(bed: Bed, folder: Path, tmp_path: Path) -> None:
    """A guest of another key under the same name is not the one that is pinned."""
    stores = {name: generate(tmp_path / f"{name}.p12", "vm1") for name in ("right", "wrong")}
    node = generate(tmp_path / "node1.p12", "node1")
    trust(node, vm1=exported(stores["right"], "vm1"))
    trust(stores["wrong"], node1=exported(node, "node1"))
    bed.serve(keys=imported(folder, stores["wrong"], tmp_path / "guest", "--pin-host", "node1=node1"))
    host = imported(folder, node, tmp_path / "host", "--pin-guest", f"{LOOPBACK}=vm1")
    manager = bed.run("/bin/true", keys=host)
    assert manager.wait() == 122
    assert "the certificate of 127.0.0.1 " in manager.last_line


@pytest.mark.parametrize("form", ["pkcs12", "jks"])
def test_java_is_a_manager_by_exported_keys(bed: Bed, java: list[str], folder: Path, tmp_path: Path, form: str) -> None:
    """It launches, polls, is told of the end, acknowledges, and exits as the application does."""
    own = ["--keypass-file", folder / "keypass"] if form == "jks" else []
    store = ["--storepass-file", folder / "pass"]
    cmapp("keys", "export", *map(str, (bed.keys.host, tmp_path / "out", "--format", form, *store, *own)))
    end = {"pkcs12": "p12", "jks": "jks"}[form]
    files = [tmp_path / "out" / f"{name}.{end}" for name in ("keystore", "truststore")]
    options = ["--keystore", files[0], "--truststore", files[1], *store, *own, "--address", bed.server.guest]
    options += ["--name", f"java-{form}", "--poll", "100"]
    ended = client(java, *options, LOOPBACK, "--", "/bin/sh", "-c", "sleep 0.5; exit 7")
    assert ended.code == 7, ended.said
    for word in ("welcomed by", "launched as pid", "it is running", "ended: {type=exited, code=7}", "acknowledged"):
        assert word in ended.said
    killed = client(java, *options, LOOPBACK, "--", "/bin/sh", "-c", "kill -9 $$")
    assert (killed.code, "signal=9" in killed.said) == (137, True), killed.said
    refused = client(java, *options, LOOPBACK, "--", "/no/such/command")
    assert (refused.code, "(not-found)" in refused.said) == (122, True), refused.said


def test_java_runs_from_its_source(bed: Bed, folder: Path, guest: Path, host: Path, tmp_path: Path) -> None:
    """As docs/java.md says, with a keystore that never was anything else, and a server whose keys come from another."""
    server = bed.serve(keys=imported(folder, guest, tmp_path / "guest"))
    options = calling(folder, host, server)
    ended = client(["java", str(SOURCE)], *options, "vm1", "--", "/bin/sh", "-c", "exit 5")
    assert (ended.code, "acknowledged" in ended.said) == (5, True), ended.said
    assert "manager node1 " in server.log


def made_wrong(case: str, folder: Path, authority: Authority) -> Path:
    """Return the keystore of a host that is to be turned away."""
    if case == "another-authority":
        another = Authority(folder / "another", "another")
        return trust(another.sign(folder / "a.p12", "host", "node1"), company=authority.certificate)
    if case == "self-signed":
        return trust(generate(folder / "s.p12", "node1"), company=authority.certificate)
    if case == "guest":
        return authority.sign(folder / "g.p12", "guest", "vm2")
    more = {"expired": ("-startdate", "-3d", "-validity", "1"), "sha1": ("-sigalg", "SHA1withECDSA")}.get(case, ())
    return authority.sign(folder / "w.p12", "host", "node1", *more, kind=case if case in KINDS else "ec")


# What the client hears, what the server's log says, and why `cmapp keys import` takes no such keystore, if it does not.
WRONG = {
    "another-authority": ("unknown_ca", "is not from our authority", ""),
    "self-signed": ("unknown_ca", "is not from our authority", ""),
    "guest": ("unsupported_certificate", "is for the other role", ""),
    "expired": ("certificate_expired", "has expired", "has expired on "),
    "sha1": ("bad_certificate", "SHA-1", "is signed with SHA-1, which TLS refuses"),
    "rsa-1024": ("bad_certificate", "too weak", "has a weak or unsuitable key (RSA 1024 bits)"),
    "dsa": ("certificate_required", "showed no certificate", ""),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_keystores_are_turned_away(  # noqa: PLR0913, PLR0917 - fixtures
    bed: Bed, java: list[str], folder: Path, authority: Authority, guest: Path, tmp_path: Path, case: str
) -> None:
    """Whatever is wrong is said at both ends, by an alert of its own and in words, and nothing was launched."""
    alert, words, reason = WRONG[case]
    store = made_wrong(case, tmp_path, authority)
    server = bed.serve(keys=imported(folder, guest, tmp_path / "guest"))
    ended = client(java, *calling(folder, store, server), "vm1", "--", "/bin/true")
    assert (ended.code, f"fatal alert: {alert}" in ended.said) == (122, True), ended.said
    until(lambda: re.search(f"turned away: .*{re.escape(words)}", server.log), "a word in the server's log")
    assert "launched" not in server.log
    if reason:
        done = taken(folder, store, tmp_path / "keys")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert reason in done.stderr


def test_a_dsa_key_is_not_taken(folder: Path, tmp_path: Path) -> None:
    """Some versions of cryptography cannot even read the keystore; either way a sentence names DSA."""
    peer = exported(generate(tmp_path / "v.p12", "vm1"), "vm1")
    store = trust(generate(tmp_path / "d.p12", "node1", kind="dsa"), vm1=peer)
    done = taken(folder, store, tmp_path / "keys", "--pin-guest", "vm1=vm1")
    assert (done.returncode, done.stderr.count("\n"), "DSA" in done.stderr) == (1, 1, True)


def test_x509_v1_is_not_taken(folder: Path, tmp_path: Path) -> None:
    """A self-signed certificate of version 1 could issue others, and is neither pinned nor anybody's own."""
    subject = ["-subj", "/CN=vm1", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    request = ["openssl", "req", "-new", *subject, "-keyout", f"{tmp_path}/v1.key", "-out", f"{tmp_path}/v1.csr"]
    # Without extensions, and so of version 1.
    sign = ["openssl", "x509", "-req", "-in", f"{tmp_path}/v1.csr", "-signkey", f"{tmp_path}/v1.key"]
    bundle = ["openssl", "pkcs12", "-export", "-inkey", f"{tmp_path}/v1.key", "-in", f"{tmp_path}/v1.pem"]
    bundle += ["-name", "vm1", "-passout", f"pass:{PASSWORD}", "-out", f"{tmp_path}/v1.p12"]
    for command in (request, [*sign, "-days", "9", "-out", f"{tmp_path}/v1.pem"], bundle):
        subprocess.run(command, check=True, capture_output=True)
    node = trust(generate(tmp_path / "node1.p12", "node1"), vm1=tmp_path / "v1.pem")
    own = trust(tmp_path / "v1.p12", node1=exported(node, "node1"))
    for store, pin in ((node, ("--pin-guest", "vm1")), (own, ("--pin-host", "node1"))):
        done = taken(folder, store, tmp_path / "keys", *pin)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "is an X.509 v1 certificate, which could vouch for others" in done.stderr


def test_a_wrong_password_opens_nothing(bed: Bed, java: list[str], folder: Path, host: Path, tmp_path: Path) -> None:
    """Neither for `cmapp` nor for Java, and both say what is wrong."""
    done = taken(folder, host, tmp_path / "keys", "--storepass-file", folder / "wrongpass")
    assert done.returncode == 1
    assert f"{host} cannot be opened: the store password is wrong, or the file was altered or cut" in done.stderr
    ended = client(java, *calling(folder, host, bed.server, "--storepass-file", folder / "wrongpass"), "vm1", "--", "x")
    assert (ended.code, "password was incorrect" in ended.said) == (125, True), ended.said


def test_a_guest_by_another_name_is_not_called(  # noqa: PLR0913, PLR0917 - fixtures
    bed: Bed, java: list[str], folder: Path, guest: Path, host: Path, tmp_path: Path
) -> None:
    """Java looks at the names in the guest's certificate, and the server is told that it was refused."""
    server = bed.serve(keys=imported(folder, guest, tmp_path / "guest"))
    ended = client(java, *calling(folder, host, server), "vm2", "--", "/bin/true")
    assert (ended.code, "vm2" in ended.said) == (122, True), ended.said
    until(lambda: "refused our certificate" in server.log, "a word in the server's log")
