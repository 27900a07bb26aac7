"""An authority's key behind a passphrase: typed or in a file, never on a command line, and never wrong in silence."""

from __future__ import annotations

import os
import pty
import select
import signal
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from cmapp.keys.keystore import read_authority
from cmapp.keys.passphrase import ROUNDS
from tests.shell.keys_bed import COMMAND, done, openssl, refused

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "correct horse battery stäple"  # noqa: S105 - of these tests
PATIENCE = 30.0  # seconds for a command to say what it has to


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return a file with a passphrase, which only its owner can read."""
    path = tmp_path / "passphrase"
    path.touch(0o600)
    path.write_text(f"{SECRET}\nand a line that does not count\n")
    return path


@pytest.fixture
def store(tmp_path: Path, secret: Path) -> Path:
    """Return the folder of an authority whose key is behind that passphrase."""
    done("init", tmp_path / "ca", "--passphrase-file", secret)
    return tmp_path / "ca"


def typed(*arguments: object, answers: list[str]) -> tuple[int, str]:
    """Run `cmapp keys` on a terminal of its own, typing an answer at each prompt; return its code and the screen."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(COMMAND[0], [*COMMAND, *map(str, arguments)])  # noqa: S606 - there is nothing for a shell in it
    screen, deadline = b"", time.monotonic() + PATIENCE
    waiting = list(answers)
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                part = os.read(terminal, 4096)
            except OSError:  # what a terminal says when all who had it open are gone
                break
            screen += part
            if screen.rstrip(b" ").endswith(b":") and waiting:
                os.write(terminal, waiting.pop(0).encode() + b"\n")
        else:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(terminal)
        status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status), screen.decode().replace("\r\n", "\n")


def test_the_key_is_of_no_use_without(store: Path, secret: Path) -> None:
    """What lies on the disk is encrypted, private, and opens with the passphrase to the key of the certificate."""
    key = store / "ca-key.pem"
    assert key.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(key.read_bytes(), None)
    assert read_authority(store, lambda _path: SECRET.encode())
    assert "P-256" in openssl("pkey", "-in", key, "-passin", f"file:{secret}", "-noout", "-text")


def test_guessing_costs(store: Path, tmp_path: Path) -> None:
    """The key is derived by as many rounds as were promised, of HMAC-SHA-256, with a salt of its own."""
    text = openssl("asn1parse", "-in", store / "ca-key.pem")
    assert f"INTEGER           :{ROUNDS:04X}" in text.replace(":0", ":")
    assert ROUNDS >= 600_000
    for word in ("PBES2", "PBKDF2", "hmacWithSHA256", "aes-256-cbc"):
        assert word in text
    done("init", tmp_path / "again", "--passphrase-file", tmp_path / "passphrase")
    salts = [line.split("DUMP]:")[1] for line in text.splitlines() if "[HEX DUMP]" in line]
    assert not any(salt in openssl("asn1parse", "-in", tmp_path / "again" / "ca-key.pem") for salt in salts)


def test_every_command_takes_the_passphrase(store: Path, secret: Path, tmp_path: Path) -> None:
    """Issue, sign, renew and revoke work as without, and what they make has keys without."""
    locked = ["--passphrase-file", secret]
    done("issue", store, "guest", "vm1", *locked)
    assert (store / "guest" / "vm1" / "key.pem").read_text().startswith("-----BEGIN PRIVATE KEY-----")
    done("renew", store, "guest", "vm1", *locked)
    done("request", tmp_path / "vm2", "guest", "vm2")
    done("sign", store, tmp_path / "vm2", *locked)
    done("revoke", store, "guest", "vm1", *locked)


@pytest.mark.parametrize(
    "arguments",
    [["issue", "{}", "guest", "vm2"], ["renew", "{}", "guest", "vm1"], ["revoke", "{}"], ["sign", "{}", "{}/asks"]],
    ids=lambda arguments: arguments[0],
)
def test_a_wrong_passphrase_is_one_sentence(store: Path, secret: Path, tmp_path: Path, arguments: list[str]) -> None:
    """It says whose passphrase it is not, and nothing is made."""
    done("issue", store, "guest", "vm1", "--passphrase-file", secret)
    done("request", store / "asks", "guest", "vm3")
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("something else\n")
    before = sorted(store.rglob("*"))
    said = refused(*(each.format(store) for each in arguments), "--passphrase-file", wrong)
    assert said == f"that is not the passphrase of {store}/ca-key.pem: try again"
    assert sorted(store.rglob("*")) == before


def test_a_passphrase_is_typed_twice(tmp_path: Path) -> None:
    """A new one is asked twice, and none of it is shown; later it is asked once."""
    store = tmp_path / "ca"
    code, screen = typed("init", store, "--passphrase", answers=[SECRET, SECRET])
    assert code == 0, screen
    assert f"New passphrase of {store}/ca-key.pem: " in screen
    assert "The same again: " in screen
    assert "battery" not in screen
    code, screen = typed("issue", store, "host", "n1", answers=[SECRET])
    assert (code, f"Passphrase of {store}/ca-key.pem: " in screen) == (0, True), screen
    assert "battery" not in screen
    code, screen = typed("issue", store, "host", "n2", answers=["something else"])
    assert code == 1
    assert f"cmapp: that is not the passphrase of {store}/ca-key.pem: try again" in screen


def test_two_that_differ_make_nothing(tmp_path: Path) -> None:
    """Nobody is left with an authority whose passphrase has a slip in it."""
    code, screen = typed("init", tmp_path / "ca", "--passphrase", answers=[SECRET, f"{SECRET}x"])
    assert code == 1
    assert "cmapp: the two passphrases differ: nothing was made, try again" in screen
    assert not (tmp_path / "ca").exists()


def test_nobody_is_asked_without_a_terminal(store: Path) -> None:
    """A job at night fails with a sentence instead of waiting for ever."""
    ended = subprocess.run(
        [*COMMAND, "issue", store, "host", "n1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        timeout=PATIENCE,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    complaint = (
        f"cmapp: {store}/ca-key.pem has a passphrase, and there is no terminal to ask on: use --passphrase-file\n"
    )
    assert ended.stderr == complaint


def test_a_name_is_checked_before_the_passphrase(store: Path) -> None:
    """Nobody types a passphrase only to learn of a slip before it: no terminal, no file, and yet another complaint."""
    assert refused("issue", store, "guest", "*").startswith("'*' cannot name a guest: ")
    assert refused("renew", store, "guest", "vm9").startswith(f"cannot read {store}/guest/vm9/cert.pem: ")


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        (f"{SECRET}\n", 0o640, "{} is open to others than its owner, and holds a passphrase: chmod 600 {}"),
        ("\nsecond line\n", 0o600, "the first line of {} is empty: put the passphrase there"),
        ("short\n", 0o600, "the passphrase has less than 8 characters: choose a longer one"),
        (None, 0, "cannot read {}: No such file or directory; it is to hold the passphrase"),
    ],
    ids=["open", "empty", "short", "missing"],
)
def test_a_file_that_is_unfit_is_refused(tmp_path: Path, content: str | None, mode: int, complaint: str) -> None:
    """A passphrase that others can read, or that is none, protects nothing."""
    path = tmp_path / "passphrase"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    assert refused("init", tmp_path / "ca", "--passphrase-file", path) == complaint.format(path, path)
    assert not (tmp_path / "ca").exists()


def test_a_passphrase_comes_through_a_pipe(store: Path) -> None:
    """A manager of secrets needs no file: it writes, and cmapp reads."""
    out, into = os.pipe()
    os.write(into, SECRET.encode())
    os.close(into)
    try:
        done("issue", store, "guest", "vm1", "--passphrase-file", f"/dev/fd/{out}")
    finally:
        os.close(out)
