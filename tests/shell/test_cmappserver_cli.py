"""The command line of cmappserver: what cannot be used is one line and an exit code, never a traceback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cmapp
from cmapp.cli.cmappserver import serve as serve_guest
from cmapp.core.outcome import Exited
from tests.shell.served import COMMAND, SOON, STOPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.caller import Caller
    from tests.shell.served import Served

POWERLESS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner") if os.geteuid() == 0 else ()
UNUSABLE = 2


class Said:
    """What a command said, and how it exited."""

    def __init__(self, *argv: str | Path, prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, *COMMAND, *map(str, argv)]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=SOON, stdin=subprocess.DEVNULL
        )
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def complaint(self) -> str:
        """The one line on stderr, after the server's name; nothing else was said."""
        assert self.code == UNUSABLE
        assert (self.out, self.err.count("\n")) == ("", 1)
        assert self.err.startswith("cmappserver: ")
        return self.err.removeprefix("cmappserver: ").removesuffix("\n")


def complaint(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """Run the command in this process, where it costs nothing, and return its one line."""
    code = serve_guest([str(word) for word in argv])
    said = capsys.readouterr()
    assert (code, said.out, said.err.count("\n")) == (UNUSABLE, "", 1)
    assert said.err.startswith("cmappserver: ")
    return said.err.removeprefix("cmappserver: ").removesuffix("\n")


@pytest.fixture
def usable(key_folders: Path, tmp_path: Path) -> list[str | Path]:
    """Return options that a server can be started with."""
    (tmp_path / "conf").touch()
    keys = shutil.copytree(key_folders / "guest", tmp_path / "keys")
    return ["--config", tmp_path / "conf", "--keys", keys, "--state-dir", tmp_path / "state", "--listen", "127.0.0.1:0"]


def test_version() -> None:
    """The version goes to stdout."""
    said = Said("--version")
    assert (said.code, said.out, said.err) == (0, f"cmappserver {cmapp.__version__}\n", "")


def test_help() -> None:
    """Help names every option with its default."""
    said = Said("--help")
    assert (said.code, said.err) == (0, "")
    for word in (
        "--config FILE",
        "--keys DIR",
        "--listen ADDRESS",
        "--state-dir DIR",
        "--check",
        "5315",
        "1000",
        "10s",
    ):
        assert word in said.out


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--colour"], "unrecognized arguments: --colour"),
        (["here"], "unrecognized arguments: here"),
        (["--keys"], "expected one argument"),
        (["--che"], "unrecognized arguments: --che"),
        (["--max-applications", "0"], "max_applications must be a whole number from 1"),
        (["--max-applications", "many"], "max_applications must be"),
        (["--handshake-timeout", "5 parsecs"], "handshake_timeout must be a duration"),
        (["--listen", "vm1:99999"], "listen must be an address"),
        (["--listen", ""], "listen must be an address"),
        (["--log-level", "loud"], "log_level must be one of error, warning, info, debug"),
        (["--config", "/nowhere/conf"], "/nowhere/conf: there is no such configuration file"),
        (["--config", "/"], "/: the configuration cannot be read: Is a directory"),
    ],
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], given: list[str], why: str) -> None:
    """What is wrong with the command line is said in a line, and nothing is started."""
    assert why in complaint(capsys, *given)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("colour = 1", "there is no setting 'colour'; there are allow, allow_tls12, "),
        ("keys = 1", "keys must be a string"),
        ("listen = 1", "listen must be a list"),
        ('listen = ["127.0.0.1:x"]', "listen must be an address"),
        ("listen = []", "listen must be a list"),
        ("max_connections = -1", "max_connections must be a whole number from 1"),
        ("allow_tls12 = 1", "allow_tls12 must be true or false"),
        ("handshake_timeout = nan", "handshake_timeout must be a duration"),
        ("= 1", "the configuration is not valid TOML: "),
        ("a = 1\na = 2", "the configuration is not valid TOML: "),
        (b"a = '\xff'", "the configuration is not valid TOML: "),
    ],
)
def test_bad_configuration(
    capsys: pytest.CaptureFixture[str], usable: list[str | Path], tmp_path: Path, content: str | bytes, why: str
) -> None:
    """What is wrong with the file is said with its name, to start with and to check."""
    config = tmp_path / "conf"
    config.write_bytes(content if isinstance(content, bytes) else content.encode())
    for options in ([], ["--check"]):
        said = complaint(capsys, *usable, *options)
        assert said.startswith(f"{config}: ")
        assert why in said


def test_options_win_over_the_file(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """What stands on the command line wins over the file, and the file over the default."""
    config = tmp_path / "mine"
    config.write_text(f'{STOPS}max_applications = 1\noutput_keep = 3\nkeys = "/nowhere"\n')
    server = serve("--config", str(config), "--max-applications", "2")
    first, second = call(server), call(server)
    first.launch("sleep", "1000")
    assert second.run("true").outcome == Exited(0)


def test_no_file_is_fine(usable: list[str | Path]) -> None:
    """Without --config the default file is read if it is there, and need not be."""
    if Path("/etc/cmappserver.conf").exists():
        pytest.skip("this machine has a configuration")
    assert Said(*usable[2:], "--check").code == 0


def test_check_of_what_is_good(usable: list[str | Path], tmp_path: Path) -> None:
    """A check says that all is well, and makes nothing."""
    said = Said(*usable, "--check")
    first, second = said.out.splitlines()
    assert (said.code, first, said.err) == (0, "the settings and the keys can be used", "")
    assert "root" in second  # what it would keep of root's powers, or that it has none
    assert not (tmp_path / "state").exists()


def test_check_tells_everything(usable: list[str | Path], tmp_path: Path) -> None:
    """A check tells each thing that is wrong in a line of its own, and exits as the start would."""
    (tmp_path / "keys" / "cert.pem").unlink()
    (tmp_path / "keys" / "ca.pem").write_text("")
    (tmp_path / "state").touch()
    said = Said(*usable, "--check")
    assert (said.code, said.err) == (UNUSABLE, "")
    lines = said.out.splitlines()
    assert len(lines) == 3
    for line, word in zip(lines, ("cert.pem", "ca.pem", "state"), strict=True):
        assert str(tmp_path) in line
        assert word in line


def test_check_of_keys_of_the_wrong_role(usable: list[str | Path], key_folders: Path) -> None:
    """A host's keys are no guest's."""
    said = Said(*usable, "--keys", key_folders / "host", "--check")
    assert said.code == UNUSABLE
    assert "host n1" in said.out


@pytest.mark.parametrize("missing", ["cert.pem", "key.pem", "ca.pem", None])
def test_keys_that_are_missing(usable: list[str | Path], tmp_path: Path, missing: str | None) -> None:
    """Without keys the server does not start, and says which."""
    if missing is None:
        shutil.rmtree(tmp_path / "keys")
    else:
        (tmp_path / "keys" / missing).unlink()
    complaint = Said(*usable).complaint
    assert str(tmp_path / "keys" / (missing or "cert.pem")) in complaint
    assert "No such file" in complaint


def test_state_folder_of_another_server(usable: list[str | Path], serve: Callable[..., Served], tmp_path: Path) -> None:
    """Two servers do not share a state folder, and the first is not disturbed."""
    server = serve()
    assert "in use by another cmappserver" in Said(*usable, "--state-dir", tmp_path / "server-0" / "state").complaint
    assert server.process.poll() is None


def test_port_in_use(usable: list[str | Path]) -> None:
    """A port that somebody else listens on is named."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        assert f"cannot listen on {where}: Address already in use" in Said(*usable[:-2], "--listen", where).complaint


@pytest.mark.parametrize("where", ["192.0.2.1:0", "no-such-host.invalid:0"])
def test_address_that_is_not_ours(usable: list[str | Path], where: str) -> None:
    """An address that this machine does not have is named."""
    assert f"cannot listen on {where}: " in Said(*usable[:-2], "--listen", where).complaint


def test_no_right_to_the_state_folder(usable: list[str | Path], tmp_path: Path) -> None:
    """A state folder that may not be written is named, to start with and to check."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    state: list[str | Path] = ["--state-dir", closed / "state"]
    assert "closed/state cannot be used: Permission denied" in Said(*usable, *state, prefix=POWERLESS).complaint
    said = Said(*usable, *state, "--check", prefix=POWERLESS)
    assert (said.code, said.out.count("\n")) == (UNUSABLE, 1)
    assert f"{closed} cannot be written to" in said.out


def test_state_folder_that_is_a_file(usable: list[str | Path], tmp_path: Path) -> None:
    """A file where the state folder should be is named."""
    (tmp_path / "state").touch()
    assert "state is not a folder" in Said(*usable).complaint


def test_state_folder_is_private(serve: Callable[..., Served], tmp_path: Path) -> None:
    """The state folder is made if it is not there, for its owner only."""
    serve("--state-dir", str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
