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
        ([], 2, "command"),
    ],
    ids=["no-authority", "path-as-name", "bad-san", "bad-role", "no-days", "key-as-certificate", "no-file", "nothing"],
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
