"""The command `cmapp`, as a user meets it: what it says, where, and which exit code that makes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import cmapp
from cmapp.cli.cmapp import main
from cmapp.net.identity import Role
from cmapp.net.keyfolder import check_keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]

COMMAND = (sys.executable, "-c", "from cmapp.cli.cmapp import main; main()")
# Root without its power over files: another user might not be able to read this interpreter at all.
POWERLESS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner") if os.geteuid() == 0 else ()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and returns its exit code and what it wrote."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cmapp", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code or 0
        assert isinstance(code, int)
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def store(run: Run, tmp_path: Path) -> Path:
    """Return the folder of an authority that the command made."""
    assert run("keys", "init", tmp_path / "store")[0] == 0
    return tmp_path / "store"


def test_the_version_is_told(run: Run) -> None:
    """It is the package's."""
    assert run("--version") == (0, f"cmapp {cmapp.__version__}\n", "")


COMMANDS = [[], ["keys"], ["keys", "init"], ["keys", "issue"], ["keys", "show"], ["status"], ["hold"], ["resume"]]


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_given(run: Run, arguments: list[str], option: str) -> None:
    """Every command explains itself, on standard output."""
    code, out, err = run(*arguments, option)
    assert (code, err) == (0, "")
    assert out.startswith(" ".join(["Usage: cmapp", *arguments, "[OPTIONS]"]))


def test_two_machines_are_equipped(run: Run, store: Path) -> None:
    """The tour of the manual ends with folders that both daemons take."""
    code, out, err = run("keys", "issue", store, "guest", "vm1", "--san", "192.0.2.7")
    assert (code, err) == (0, "")
    assert out.startswith(f"issued {store}/guest/vm1 for guest vm1 (DNS vm1, IP 192.0.2.7), valid until ")
    assert "cmappserver --keys" in out
    code, out, err = run("keys", "issue", store, "host", "n1")
    assert "cmappmgr --keys" in out
    assert check_keys(f"{store}/guest/vm1", Role.GUEST) == check_keys(f"{store}/host/n1", Role.HOST) == []


def test_a_certificate_is_shown(run: Run, store: Path) -> None:
    """Who, role, names, issuer, dates and fingerprint stand there, for a file and for a folder alike."""
    run("keys", "issue", store, "guest", "vm1", "--san", "2001:db8::1", "--days", "30")
    code, out, err = run("keys", "show", store / "guest" / "vm1", store / "guest" / "vm1" / "cert.pem", store)
    assert (code, err) == (0, "")
    folder, file, authority = re.split(r"^/.*:\n", out, flags=re.MULTILINE)[1:]
    assert folder == file
    told = dict(re.findall(r"^  (\S+) +(.*)$", folder, re.MULTILINE))
    assert told["who"] == "vm1"
    assert told["role"] == "guest"
    assert told["names"] == "DNS vm1, IP 2001:db8::1"
    assert re.fullmatch(r"cmapp authority [0-9a-f]{8}", told["issuer"])
    assert told["until"].endswith(" UTC, 30 days left")
    assert re.fullmatch(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", told["SHA-256"])
    assert "  role    authority\n" in authority


@pytest.mark.parametrize(("start", "mark"), [(-9, "EXPIRED 7 days ago"), (5, "NOT YET VALID")])
def test_a_foreign_certificate_is_shown(run: Run, tmp_path: Path, start: int, mark: str) -> None:
    """It has no role, it is marked when out of its time, and nothing in it reaches the terminal."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil\x1b[2J")])
    since = datetime.now(UTC) + timedelta(days=start)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    certificate = builder.not_valid_before(since).not_valid_after(since + timedelta(days=2))
    pem = certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (tmp_path / "cert.pem").write_bytes(pem)
    code, out, err = run("keys", "show", tmp_path / "cert.pem")
    assert (code, err) == (0, "")
    assert r"evil\x1b[2J" in out
    assert "none: it has no role URI" in out
    assert mark in out


def test_nothing_is_overwritten_without_force(run: Run, store: Path) -> None:
    """A second run says what is there; with --force it replaces that."""
    issue = ("keys", "issue", store, "guest", "vm1")
    assert run(*issue)[0] == 0
    before = (store / "guest" / "vm1" / "key.pem").read_bytes()
    complaint = "cmapp: {} is there already: use --force to replace it\n"
    assert run(*issue) == (1, "", complaint.format(store / "guest" / "vm1" / "key.pem"))
    assert run("keys", "init", store) == (1, "", complaint.format(store / "ca-key.pem"))
    assert (store / "guest" / "vm1" / "key.pem").read_bytes() == before
    assert run(*issue, "--force")[0] == 0
    assert (store / "guest" / "vm1" / "key.pem").read_bytes() != before


def test_a_shortened_life_is_told(run: Run, tmp_path: Path) -> None:
    """Whoever asks for more days than the authority has learns that it got fewer."""
    run("keys", "init", tmp_path / "brief", "--days", "10", "--name", "brief")
    asked = run("keys", "issue", tmp_path / "brief", "host", "n1", "--days", "11")[1]
    default = run("keys", "issue", tmp_path / "brief", "host", "n2")[1]
    fitting = run("keys", "issue", tmp_path / "brief", "host", "n3", "--days", "9")[1]
    assert "not for 11 days: it ends with its authority" in asked
    assert "not for 825 days: it ends with its authority" in default
    assert "ends with its authority" not in fitting


USAGE = [
    [],
    ["keys"],
    ["--frob"],
    ["frob"],
    ["keys", "frob"],
    ["keys", "init"],
    ["keys", "init", "d", "--days", "x"],
    ["keys", "init", "d", "--days", "0"],
    ["keys", "init", "d", "--days", "36501"],
    ["keys", "init", "d", "e"],
    ["keys", "issue", "d", "guest"],
    ["keys", "issue", "d", "manager", "n1"],
    ["keys", "issue", "d", "guest", "vm1", "--san"],
    ["keys", "show"],
    ["status"],
    ["status", "vm1", "db", "web"],
    ["status", "vm1", "../db"],
    ["status", "vm 1"],
    ["status", "vm1:0"],
    ["status", "vm1", "--address", "vm 1"],
    ["hold", "vm1"],
    ["hold", "vm1", "-x"],
    ["resume", "vm1", "a b"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_usage_is_one_line_and_exit_code_2(run: Run, arguments: list[str]) -> None:
    """It says what is wrong and where to read more."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"cmapp: [^\n]+ \(see 'cmapp[a-z ]* --help'\)\n", err)


FAILURES = {
    "keys issue {}/nowhere guest vm1": "cmapp: cannot read {}/nowhere/ca.pem: No such file or directory; ",
    "keys show {}/nowhere": "cmapp: cannot read {}/nowhere: No such file or directory; ",
    "keys show {}": "cmapp: cannot read {}/ca.pem: No such file or directory; ",
    "keys show {}/text": "cmapp: {}/text holds no certificate in PEM format: ",
    "keys show {}/broken": "cmapp: {}/broken holds a malformed certificate (",
    "keys init {}/text": "cmapp: cannot write {}/text: File exists",
    "keys init {}/text/below": "cmapp: cannot write {}/text/below: Not a directory",
    "keys init {}/new --name=": "cmapp: '' cannot name an authority: ",
    "keys issue {}/store guest *": "cmapp: '*' cannot name a guest: ",
    "keys issue {}/store guest vm1 --san=*": "cmapp: '*' is neither a host name nor an IP address: ",
    "status vm1 --keys={}/nowhere": "cmapp: cannot read {}/nowhere/cert.pem: No such file or directory; --keys takes",
    "hold vm1 db --keys={}/nowhere": "cmapp: cannot read {}/nowhere/cert.pem: No such file or directory; --keys takes",
}


@pytest.mark.parametrize("arguments", FAILURES)
@pytest.mark.usefixtures("store")
def test_a_failure_is_one_line_and_exit_code_1(run: Run, tmp_path: Path, arguments: str) -> None:
    """It says what happened, and to what."""
    (tmp_path / "text").write_text("text")
    (tmp_path / "broken").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    code, out, err = run(*arguments.format(tmp_path).split())
    assert (code, out) == (1, "")
    assert err.startswith(FAILURES[arguments].format(tmp_path))
    assert err.count("\n") == 1


def test_a_name_cannot_forge_a_second_line(run: Run, tmp_path: Path) -> None:
    """Whatever stands in an argument, the complaint stays one line and the terminal is left alone."""
    code, _out, err = run("keys", "show", f"{tmp_path}/a\ncmapp: all is well\x1b[2J")
    assert code == 1
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_missing_rights_are_told(store: Path, tmp_path: Path) -> None:
    """Whoever may not read or write there is told so, without a traceback."""
    tmp_path.chmod(0o555)
    store.chmod(0)
    for arguments, complaint in (
        (["init", tmp_path / "new"], f"cannot write {tmp_path}/new: Permission denied"),
        (["issue", store, "guest", "vm1"], f"cannot read {store}/ca.pem: you may not; run cmapp as its owner"),
        (["show", store / "ca.pem"], f"cannot read {store}/ca.pem: you may not; run cmapp as its owner"),
        (["show", store], f"cannot read {store}/ca.pem: you may not; run cmapp as its owner"),
    ):
        done = subprocess.run(
            [*POWERLESS, *COMMAND, "keys", *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"cmapp: {complaint}")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--version"], ["keys", "--help"], ["keys", "show", "{}"]])
def test_a_full_disk_is_told(store: Path, arguments: list[str]) -> None:
    """Output that does not arrive is a failure, and Python does not complain on top."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        command = [*COMMAND, *(argument.format(store) for argument in arguments)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=buffered, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "cmapp: standard output: No space left on device\n")


@pytest.mark.parametrize("missing", ["click", "cryptography"])
def test_a_missing_library_is_named(missing: str) -> None:
    """The daemons need neither, so a machine may well have neither: one line says what to install."""
    code = f"import sys; sys.modules['{missing}'] = None; {COMMAND[2]}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cmapp: ")
    assert "pip install 'cmapp[admin]'" in done.stderr
    assert f"python3-{missing}" in done.stderr
    assert done.stderr.count("\n") == 1
