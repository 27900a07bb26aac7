"""`cmapp keys export`: what Java gets of a key folder, and how it is kept."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from cmapp.keys import jks
from tests.shell.keystores_bed import (
    AUTHORITY,
    HOST,
    ONE,
    PASSWORD,
    TWO,
    kept,
    modes,
    password_files,
    runner,
    self_signed,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.shell.keystores_bed import Run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `cmapp keys`."""
    return runner(monkeypatch, capfd)


@pytest.fixture
def passwords(tmp_path: Path) -> list[object]:
    """Return the options that open the keystores."""
    return password_files(tmp_path)


@pytest.mark.parametrize("form", ["pkcs12", "jks"])
def test_what_was_imported_is_exported_and_imported_again(
    run: Run, passwords: list[object], tmp_path: Path, form: str
) -> None:
    """Key, chain, authorities and pins make the whole way; both files are their owner's only, whatever the umask."""
    store = kept(tmp_path / "k", HOST, ("ca", AUTHORITY.certificate), ("two", TWO.certificate))
    assert run("import", store, tmp_path / "keys", *passwords, "--pin-guest", "vm1=two")[0] == 0
    before = os.umask(0)
    try:
        assert run("export", tmp_path / "keys", tmp_path / "out", "--format", form, *passwords)[::2] == (0, "")
    finally:
        os.umask(before)
    end = {"pkcs12": "p12", "jks": "jks"}[form]
    assert modes(tmp_path / "out") == {f"keystore.{end}": 0o600, f"truststore.{end}": 0o600}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    trust = ["--truststore", tmp_path / "out" / f"truststore.{end}", "--pin-guest", "vm1=guest-vm1"]
    again = ["import", tmp_path / "out" / f"keystore.{end}", tmp_path / "again", "--alias", "CMAPP", *trust]
    assert run(*again, *passwords)[0] == 0
    read = {path.relative_to(tmp_path / "keys"): path.read_bytes() for path in (tmp_path / "keys").rglob("*.pem")}
    assert {
        path.relative_to(tmp_path / "again"): path.read_bytes() for path in (tmp_path / "again").rglob("*.pem")
    } == read


def test_java_gets_the_whole_chain(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """Up to the root, as keytool keeps it, although a key folder has that among those who are trusted."""
    store = kept(tmp_path / "k", HOST, ("ca", AUTHORITY.certificate))
    assert run("import", store, tmp_path / "keys", *passwords)[0] == 0
    assert run("export", tmp_path / "keys", tmp_path / "out", "--format", "jks", *passwords)[0] == 0
    (entry,) = jks.read((tmp_path / "out" / "keystore.jks").read_bytes(), PASSWORD).keys
    assert list(entry.certificates) == [HOST.certificate, AUTHORITY.certificate]


def test_an_exported_keystore_is_not_overwritten(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """Unless --force says so."""
    store = kept(tmp_path / "k", HOST, ("ca", AUTHORITY.certificate))
    assert run("import", store, tmp_path / "keys", *passwords)[0] == 0
    command = ["export", tmp_path / "keys", tmp_path / "out", *passwords]
    assert run(*command)[0] == 0
    before = (tmp_path / "out" / "keystore.p12").read_bytes()
    code, _, error = run(*command)
    assert (code, "--force" in error) == (1, True)
    assert (tmp_path / "out" / "keystore.p12").read_bytes() == before
    assert run(*command, "--force")[0] == 0


def test_a_short_password_is_refused(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """As keytool refuses it, and what is not ASCII, which Java versions read differently."""
    store = kept(tmp_path / "k", HOST, ("ca", AUTHORITY.certificate))
    assert run("import", store, tmp_path / "keys", *passwords)[0] == 0
    for password in ("short", "pässword"):
        (tmp_path / "pass").write_text(password)
        code, _, error = run("export", tmp_path / "keys", tmp_path / "out", *passwords)
        assert code == 1
        assert "6 printable ASCII characters or more" in error
    assert not (tmp_path / "out").exists()


def test_pins_that_java_could_not_tell_apart_are_refused(run: Run, passwords: list[object], tmp_path: Path) -> None:
    """An alias in Java has no case."""
    store = kept(tmp_path / "k", ONE, ("a", TWO.certificate), ("b", self_signed("three").certificate))
    pins = ["--pin-guest", "vm1=a", "--pin-guest", "VM1=b"]
    assert run("import", store, tmp_path / "keys", *passwords, *pins)[0] == 0
    code, _, error = run("export", tmp_path / "keys", tmp_path / "out", *passwords)
    assert code == 1
    assert "cannot be guest-vm1 in Java" in error


@pytest.mark.parametrize(
    "how",
    ["", "-keypbe NONE", "-keypbe NONE -certpbe NONE", "-nomac", "-name me -caname ca"],
    ids=lambda how: how or "usual",
)
def test_what_openssl_makes_is_imported(run: Run, passwords: list[object], tmp_path: Path, how: str) -> None:
    """Names or none, encrypted or not; who only came along is not trusted, and a file without a key is a truststore."""
    store = kept(tmp_path / "k", HOST, ("ca", AUTHORITY.certificate))
    assert run("import", store, tmp_path / "keys", *passwords)[0] == 0
    keys, made, trust = tmp_path / "keys", tmp_path / "made.p12", tmp_path / "trust.p12"
    common: list[str | Path] = ["openssl", "pkcs12", "-export", "-passout", f"pass:{PASSWORD}"]
    key: list[str | Path] = [
        *common,
        *how.split(),
        "-in",
        keys / "cert.pem",
        "-inkey",
        keys / "key.pem",
        "-certfile",
        keys / "ca.pem",
    ]
    subprocess.run([*key, "-out", made], check=True)
    subprocess.run([*common, "-nokeys", "-in", keys / "ca.pem", "-out", trust], check=True)
    code, _, error = run("import", made, tmp_path / "alone", *passwords)
    assert (code, "nobody would be trusted" in error) == ((0, False) if "-caname" in how else (1, True))
    assert run("import", made, tmp_path / "again", *passwords, "--truststore", trust)[0] == 0
    for name in ("cert.pem", "key.pem", "ca.pem"):
        assert (tmp_path / "again" / name).read_bytes() == (keys / name).read_bytes()
