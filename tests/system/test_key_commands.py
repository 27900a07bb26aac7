"""Keys by the installed `cmapp`: made, issued and shown, with the rights that keys need, and never overwritten."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.system.commands import CMAPP, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed


def keys(*arguments: object) -> str:
    """Run `cmapp keys`, which must succeed, and return what it said."""
    done = run([CMAPP, "keys", *map(str, arguments)])
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def modes(folder: Path) -> dict[str, int]:
    """Return the files of a folder with their rights."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """An authority, made while the umask would let others read everything."""
    before = os.umask(0)
    try:
        keys("init", tmp_path / "ca")
        keys(
            "issue",
            tmp_path / "ca",
            "guest",
            "vm1",
            "--san",
            "192.0.2.7",
            "--san",
            "2001:db8::1",
            "--san",
            "vm1.example.org",
        )
        keys("issue", tmp_path / "ca", "host", "node1", "--days", "7")
    finally:
        os.umask(before)
    return tmp_path / "ca"


def test_files_and_rights(authority: Path) -> None:
    """Key folders hold what --keys takes, private keys are their owner's only, the authority's in none."""
    assert modes(authority) == {"ca-key.pem": 0o600, "ca.pem": 0o644}
    for folder in (authority / "guest" / "vm1", authority / "host" / "node1"):
        assert modes(folder) == {"cert.pem": 0o644, "key.pem": 0o600, "ca.pem": 0o644}
        assert (folder / "ca.pem").read_text() == (authority / "ca.pem").read_text()


def test_show(authority: Path) -> None:
    """`show` says who, in which role, under which names, until when."""
    said = keys("show", authority / "guest" / "vm1" / "cert.pem", authority / "host" / "node1", authority / "ca.pem")
    guest, host, ca = (
        said[said.index(f"{path}") :] for path in (authority / "guest", authority / "host", authority / "ca.pem")
    )
    for word in ("vm1", "guest", "192.0.2.7", "2001:db8::1", "vm1.example.org", "825 days left"):
        assert word in guest.split(str(authority / "host"))[0]
    for word in ("node1", "host", "7 days left"):
        assert word in host
    assert "authority" in ca


@pytest.mark.parametrize(
    "again",
    [["init", "{ca}"], ["issue", "{ca}", "guest", "vm1"], ["issue", "{ca}", "host", "node1"]],
    ids=["init", "guest", "host"],
)
def test_no_overwriting(authority: Path, again: list[str]) -> None:
    """What is there is not overwritten, not a byte of it, unless --force says so."""
    command = [CMAPP, "keys", *(word.format(ca=authority) for word in again)]
    before = {path: path.read_bytes() for path in authority.rglob("*.pem")}
    done = run(command)
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in authority.rglob("*.pem")} == before
    assert run([*command, "--force"]).returncode == 0
    assert {path: path.read_bytes() for path in authority.rglob("*.pem")} != before


def test_forced_keys_work(bed: Bed, authority: Path) -> None:
    """Keys that replaced others work with those of the same authority."""
    keys("issue", authority, "guest", "vm1", "--san", "127.0.0.1", "--force")
    bed.serve(keys=authority / "guest" / "vm1")
    assert bed.run("/bin/sh", "-c", "exit 6", keys=authority / "host" / "node1").wait() == 6


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["issue", "{ca}/none", "host", "x"], 1, "cannot read"),
        (["issue", "{ca}", "host", "../../x"], 1, "cannot name"),
        (["issue", "{ca}", "guest", "vm1", "--san", "a b"], 1, "'a b' is neither"),
        (["issue", "{ca}", "boss", "x"], 2, "boss"),
        (["issue", "{ca}", "host", "x", "--days", "0"], 2, "--days"),
        (["show", "{ca}/ca-key.pem"], 1, "no certificate"),
        (["show", "{ca}/none"], 1, "cannot read"),
        (["renew", "{ca}", "guest", "vm9"], 1, "cannot read"),
        (["revoke", "{ca}", "guest", "vm9"], 1, "no certificate of guest vm9"),
        (["revoke", "{ca}", "guest"], 2, "one NAME"),
        (["check", "{ca}/guest/vm1", "boss"], 2, "boss"),
        (["request", "{ca}/asks", "guest", "../x"], 1, "cannot name"),
        (["sign", "{ca}", "{ca}/ca.pem"], 1, "no signing request"),
        (["accept", "{ca}/host", "{ca}/guest/vm1"], 1, "there is no"),
        (["trust", "{ca}/guest/vm1", "{ca}/host/node1/cert.pem"], 1, "is no authority's"),
        (["distrust", "{ca}/guest/vm1", "nobody"], 1, "no authority there is called nobody"),
        (["pin", "{ca}/guest/vm1", "host", "x", "{ca}/ca.pem"], 1, "could vouch for others"),
        (["init", "{ca}/new", "--passphrase"], 1, "no terminal"),
        ([], 2, "command"),
    ],
    ids=[
        *("no-authority", "path-as-name", "bad-san", "bad-role", "no-days", "key-as-certificate", "no-file"),
        *(
            "renew-nobody",
            "revoke-nobody",
            "revoke-no-name",
            "check-bad-role",
            "request-path-as-name",
            "sign-no-request",
        ),
        *("accept-without-key", "trust-a-leaf", "distrust-nobody", "pin-an-authority", "no-terminal", "nothing"),
    ],
)
def test_misuse(authority: Path, arguments: list[str], code: int, reason: str) -> None:
    """What is wrong is told in one line, and nothing is left behind."""
    before = sorted(authority.rglob("*"))
    done = run([CMAPP, "keys", *(word.format(ca=authority) for word in arguments)])
    assert done.returncode == code
    assert done.stderr.startswith("cmapp: ")
    assert done.stderr.count("\n") == 1
    assert reason.lower() in done.stderr.lower()
    assert sorted(authority.rglob("*")) == before


def test_a_key_that_never_left_its_guest(bed: Bed, authority: Path, tmp_path: Path) -> None:
    """A guest that only asked for its certificate serves with it, and goes on serving while it asks for another."""
    folder = tmp_path / "own"
    keys("request", folder, "guest", "vm1", "--san", "127.0.0.1")
    keys("sign", authority, folder, "--force")
    assert modes(authority / "guest" / "vm1") == {"cert.pem": 0o644, "ca.pem": 0o644}
    keys("accept", folder, authority / "guest" / "vm1")
    bed.serve(keys=folder)
    assert bed.run("/bin/sh", "-c", "exit 6", keys=authority / "host" / "node1").wait() == 6
    keys("request", folder, "guest", "vm1", "--san", "127.0.0.1")
    assert bed.run("/bin/sh", "-c", "exit 7", keys=authority / "host" / "node1").wait() == 7
    keys("sign", authority, folder, "--force")
    keys("accept", folder, authority / "guest" / "vm1")
    assert bed.run("/bin/sh", "-c", "exit 8", keys=authority / "host" / "node1").wait() == 8


def test_a_revoked_manager(bed: Bed, authority: Path) -> None:
    """A host whose key was revoked is refused by a server that runs, and let in again with a new key."""
    keys("issue", authority, "guest", "vm1", "--san", "127.0.0.1", "--force")
    bed.serve(keys=authority / "guest" / "vm1")
    host = authority / "host" / "node1"
    assert bed.run("/bin/true", keys=host).wait() == 0
    keys("revoke", authority, "host", "node1")
    assert bed.run("/bin/true", keys=host).wait() == 122
    done = run([CMAPP, "keys", "check", str(host)])
    assert (done.returncode, "has been revoked" in done.stdout) == (1, True)
    keys("renew", authority, "host", "node1")
    assert bed.run("/bin/sh", "-c", "exit 9", keys=host).wait() == 9
    assert run([CMAPP, "keys", "check", str(host)]).returncode == 0
