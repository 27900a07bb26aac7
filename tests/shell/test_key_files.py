"""Files of keys, and files that are none: nothing is half written, nothing malformed is a traceback."""

from __future__ import annotations

import base64
import os
import re
import resource
import stat
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmapp.errors import SettingsError
from cmapp.keys.files import FILE_LIMIT, sole_writer, write_files
from tests.shell.keys_bed import done, keys

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = re.compile(rb"-----BEGIN ([^-]+)-----\n(.*?)-----END", re.DOTALL)
EXAMPLES = 80  # changed files, of some 20 ms each


def modes(folder: Path) -> dict[str, int]:
    """Return what is below a folder, with its rights."""
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def test_names_decide_over_rights(tmp_path: Path) -> None:
    """A private key is its owner's only however the umask stands, and so are the folders on the way to a file."""
    before = os.umask(0)
    try:
        files = dict.fromkeys(["key.pem", "new-key.pem", "a/b/c.pem", "k.p12", "k.jks", "odd"], b"x")
        write_files(tmp_path, files, force=False, private={"odd"})
    finally:
        os.umask(before)
    assert modes(tmp_path) == {
        **dict.fromkeys(["key.pem", "new-key.pem", "k.p12", "k.jks", "odd"], 0o600),
        **dict.fromkeys(["a", "a/b"], 0o700),
        "a/b/c.pem": 0o644,
    }


def test_what_is_stale_goes_last(tmp_path: Path) -> None:
    """A file that is of no use any more is removed once the others are there, and may be gone already."""
    (tmp_path / "old").touch()
    write_files(tmp_path, {"new": b"x"}, force=True, without=["old", "gone"])
    assert modes(tmp_path) == {"new": 0o644}


def test_a_full_disk_removes_nothing(tmp_path: Path) -> None:
    """What was to be replaced is there, whole, when its successor could not be written."""
    (tmp_path / "old").write_text("old")
    (tmp_path / "same").write_text("same")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(SettingsError, match=r"cannot write .*/big: File too large"):
            write_files(tmp_path, {"same": b"new", "big": b"x" * 200}, force=True, without=["old"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"old": "old", "same": "same"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_of_root_belong_to_the_folders_owner(tmp_path: Path) -> None:
    """A daemon that runs as a user of its own can read what root renews in its folder."""
    os.chown(tmp_path, 65534, 65534)
    write_files(tmp_path, {"key.pem": b"x", "peers/host/n1.pem": b"x"}, force=False)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.rglob("*")} == {(65534, 65534)}


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    """Who would change a folder waits for who is changing it."""
    order: list[str] = []
    started = threading.Event()

    def second() -> None:
        started.set()
        with sole_writer(tmp_path):
            order.append("second")

    with sole_writer(tmp_path):
        other = threading.Thread(target=second)
        other.start()
        assert started.wait(30)
        other.join(0.2)  # it would have been through by now
        order.append("first")
    other.join(30)
    assert order == ["first", "second"]


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    """Nobody fills the memory with what cannot be a key."""
    done("init", tmp_path / "ca")
    for path in ("/dev/zero", tmp_path / "large"):
        if path != "/dev/zero":
            with open(path, "wb") as file:  # noqa: PTH123 - a path, not a device, by its type
                file.truncate(FILE_LIMIT + 1)
        code, _out, err = keys("show", path)
        assert (code, err) == (1, f"cmapp: {path} is larger than {FILE_LIMIT} bytes: it is no file of keys\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a file of each kind."""
    root = tmp_path_factory.mktemp("made")
    done("init", root / "ca")
    done("issue", root / "ca", "guest", "vm1", "--san", "192.0.2.7")
    done("issue", root / "ca", "host", "n1")
    done("revoke", root / "ca", "host", "n1")
    done("request", root / "asks", "guest", "vm2")
    return root


# Each kind of file, where it belongs into a copy of a key folder, and what is asked of it; {} is the file.
KINDS = {
    "ca/guest/vm1/cert.pem": (
        "cert.pem",
        ["revoke ca {}", "pin folder guest x {} --force", "accept asks {} ca/ca.pem"],
    ),
    "ca/ca.pem": ("ca.pem", ["trust folder {}"]),
    "ca/crl.pem": ("crl.pem", ["trust folder ca/ca.pem --crl {}"]),
    "ca/guest/vm1/key.pem": ("key.pem", ["request folder guest vm1 --same-key"]),
    "asks/request.pem": ("request.pem", ["sign ca {} --force --out out.pem"]),
}


@pytest.fixture(scope="module")
def whole(made: Path) -> dict[str, bytes]:
    """Return those files as they were at first, and those of a key folder."""
    return {kind: (made / kind).read_bytes() for kind in (*KINDS, "ca/guest/vm1/ca.pem", "ca/guest/vm1/crl.pem")}


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_malformed_file_is_one_sentence(
    made: Path, whole: dict[str, bytes], data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever bytes stand in a certificate, a key, a list or a request: it is taken, or refused in one line."""
    monkeypatch.chdir(made)
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    block = BLOCK.match(whole[kind])
    assert block is not None
    der = bytearray(base64.b64decode(block[2]))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(der) - 1))
        der[place : place + data.draw(st.integers(0, 1))] = data.draw(st.binary(max_size=2))
    label, text = block[1], base64.encodebytes(bytes(der))
    changed = b"-----BEGIN " + label + b"-----\n" + text + b"-----END " + label + b"-----\n"
    (made / "changed.pem").write_bytes(changed)
    place_in_folder, commands = KINDS[kind]
    files = {kind.rpartition("/")[2]: content for kind, content in whole.items() if "vm1" in kind}
    write_files(made / "folder", files | {place_in_folder: changed}, force=True)
    for command in ("show {}", "check folder", *commands):
        code, _out, err = keys(*command.format("changed.pem").split())
        assert code in {0, 1}
        assert err.count("\n") == (1 if err else 0)


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "command", "what"),
    [
        ("ca/crl.pem", "30168014", "30168015", "trust folder ca/ca.pem --crl {}", "revocation list"),
        ("ca/guest/vm1/cert.pem", "8203766d31", "8205766d31", "accept asks {} ca/ca.pem", "certificate"),
        ("asks/request.pem", "8203766d32", "8205766d32", "sign ca {}", "signing request"),
    ],
    ids=["list", "certificate", "request"],
)
def test_a_malformed_extension_is_told_with_its_file(  # noqa: PLR0913, PLR0917 - a case
    made: Path, monkeypatch: pytest.MonkeyPatch, kind: str, right: str, wrong: str, command: str, what: str
) -> None:
    """The library reads extensions late: by then nobody would know whose fault it is."""
    monkeypatch.chdir(made)
    block = BLOCK.match((made / kind).read_bytes())
    assert block is not None
    der = base64.b64decode(block[2])
    assert bytes.fromhex(right) in der
    text = base64.encodebytes(der.replace(bytes.fromhex(right), bytes.fromhex(wrong)))
    label = block[1]
    (made / "odd.pem").write_bytes(b"-----BEGIN " + label + b"-----\n" + text + b"-----END " + label + b"-----\n")
    files = {path.name: path.read_bytes() for path in (made / "ca" / "guest" / "vm1").iterdir()}
    write_files(made / "folder", files, force=True)
    code, _out, err = keys(*command.format("odd.pem").split())
    assert code == 1
    assert err.startswith(f"cmapp: odd.pem holds a malformed {what} (")
    assert err.count("\n") == 1
