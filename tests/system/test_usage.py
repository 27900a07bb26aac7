"""What a user gives wrongly: one line on standard error that says what, exit code 125, and no traceback."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.system.commands import MANAGER, SERVER, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed

COMMAND = ["--", "/bin/true"]
MISUSES = {
    "nothing": ([], "GUEST"),
    "no-command": (["vm1", "--"], "there is no command"),
    "no-separator": (["vm1", "/bin/true"], "no -- before the command"),
    "no-guest": ([*COMMAND], "GUEST"),
    "two-guests": (["vm1", "vm2", *COMMAND], "vm2"),
    "empty-command": (["vm1", "--", ""], "--name"),
    "unknown-option": (["--colour", "vm1", *COMMAND], "--colour"),
    "abbreviated-option": (["--verb", "vm1", *COMMAND], "--verb"),
    "option-without-value": (["vm1", "--name", *COMMAND], "--name"),
    "bad-duration": (["--poll-interval", "soon", "vm1", *COMMAND], "'soon'"),
    "negative-duration": (["--poll-timeout=-1", "vm1", *COMMAND], "'-1'"),
    "no-duration": (["--poll-interval", "0", "vm1", *COMMAND], "poll_interval"),
    "infinite-duration": (["--connect-timeout", "inf", "vm1", *COMMAND], "'inf'"),
    "bad-output": (["--output", "syslog", "vm1", *COMMAND], "'syslog'"),
    "bad-signal": (["--stop-signal", "SIGBOOM", "vm1", *COMMAND], "'SIGBOOM'"),
    "bad-umask": (["--umask", "999", "vm1", *COMMAND], "'999'"),
    "bad-variable": (["--env", "NOVALUE", "vm1", *COMMAND], "NAME=VALUE"),
    "bad-name": (["--name", "a/b", "vm1", *COMMAND], "'a/b'"),
    "relative-folder": (["--cwd", "tmp", "vm1", *COMMAND], "absolute"),
    "bad-address": (["vm1:port", *COMMAND], "vm1:port"),
    "port-too-high": (["vm1:65536", *COMMAND], "vm1:65536"),
    "address-with-spaces": (["vm 1", *COMMAND], "'vm 1'"),
    "bad-other-address": (["--address", "[::1", "vm1", *COMMAND], "[::1"),
    "newline-in-option": (["--name", "a\nb", "vm1", *COMMAND], "a\\nb"),
    "no-such-config": (["--config", "{folder}/none", "vm1", *COMMAND], "{folder}/none"),
    "config-is-a-folder": (["--config", "{folder}", "vm1", *COMMAND], "{folder}"),
    "config-is-no-toml": (["--config", "{folder}/no-toml", "vm1", *COMMAND], "not valid TOML"),
    "config-is-no-text": (["--config", "{folder}/no-text", "vm1", *COMMAND], "{folder}/no-text"),
    "config-unknown-key": (["--config", "{folder}/unknown-key", "vm1", *COMMAND], "'colour'"),
    "config-bad-value": (["--config", "{folder}/bad-value", "vm1", *COMMAND], "poll_interval"),
    "no-such-keys": (["--keys", "{folder}/none", "vm1", *COMMAND], "{folder}/none/cert.pem"),
    "keys-without-key": (["--keys", "{folder}/keyless", "vm1", *COMMAND], "key.pem"),
    "keys-that-are-none": (["--keys", "{folder}/junk", "vm1", *COMMAND], "PEM"),
    "log-in-missing-folder": (["--log-file", "{folder}/none/log", "vm1", *COMMAND], "{folder}/none/log"),
    "log-is-a-folder": (["--log-file", "{folder}", "vm1", *COMMAND], "{folder}"),
    "result-in-missing-folder": (["--result", "{folder}/none/result", "vm1", *COMMAND], "{folder}/none/result"),
    "result-is-a-folder": (["--result", "{folder}", "vm1", *COMMAND], "{folder}"),
    "argument-too-long": (["vm1", "--", "/bin/echo", "x" * 100_000], "longer than"),
    "command-too-long": (["vm1", "--", "/bin/echo", *["x" * 30_000] * 4], "too long"),
}
CONFIGURATIONS = {
    "no-toml": b"poll_interval 5\n",
    "no-text": b"\xff\xfe\x00",
    "unknown-key": b'colour = "blue"\n',
    "bad-value": b'poll_interval = "often"\n',
}


@pytest.fixture
def folder(bed: Bed, tmp_path: Path) -> Path:
    """A folder with configurations and key folders that cannot be used."""
    for name, content in CONFIGURATIONS.items():
        (tmp_path / name).write_bytes(content)
    shutil.copytree(bed.keys.host, tmp_path / "keyless")
    (tmp_path / "keyless" / "key.pem").unlink()
    shutil.copytree(bed.keys.host, tmp_path / "junk")
    (tmp_path / "junk" / "cert.pem").write_text("junk\n")
    return tmp_path


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse(bed: Bed, folder: Path, misuse: str) -> None:
    """Each way to misuse cmappmgr gives 125 and one line that says what is wrong."""
    arguments, reason = MISUSES[misuse]
    given = [word.replace("{folder}", str(folder)) for word in arguments]
    keys = [] if "--keys" in given else ["--keys", str(bed.keys.host)]
    done = run([MANAGER, "--no-syslog", *keys, *given])
    assert done.returncode == 125
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("cmappmgr: ")
    assert reason.replace("{folder}", str(folder)) in done.stderr


def test_misuse_is_in_the_package_log_too(bed: Bed) -> None:
    """What keeps cmappmgr from its work once the package log is open stands there too, for who reads only that."""
    manager = bed.run("/bin/true", keys=bed.folder / "none")
    assert manager.wait() == 125
    assert "ERROR: cannot read" in manager.last_line
    assert "cannot read" in manager.stderr


def test_passphrase_is_not_asked_for(bed: Bed, tmp_path: Path) -> None:
    """An encrypted key is a line and 125, never a question that nobody answers."""
    shutil.copytree(bed.keys.host, tmp_path / "encrypted")
    key = str(tmp_path / "encrypted" / "key.pem")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to encrypt a key with")
    assert run([openssl, "ec", "-in", key, "-out", key, "-aes256", "-passout", "pass:secret"]).returncode == 0
    done = run([MANAGER, "--no-syslog", "--keys", str(tmp_path / "encrypted"), bed.server.guest, *COMMAND])
    assert done.returncode == 125
    assert "passphrase" in done.stderr


def test_configuration_file(bed: Bed, tmp_path: Path) -> None:
    """What the configuration file sets holds, what the command line says wins over it."""
    config = tmp_path / "cmappmgr.conf"
    values = {
        "poll_interval": "2s",
        "poll_timeout": "3s",
        "output": "stdout",
        "name": "from-file",
        "keys": str(bed.keys.host),
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    config.write_text("\n".join([*lines, 'env = ["A=1"]', "syslog = false", ""]))
    options = ["--config", str(config), "--poll-timeout", "4s"]
    done = run([MANAGER, *options, bed.server.guest, "--", "/usr/bin/env"])
    assert done.returncode == 0
    assert done.stdout == "A=1\n"
    assert "a hung guest within 6 s (polled every 2 s, 4 s to answer)" in done.stderr
    assert " from-file on 127.0.0.1: " in done.stderr


SERVER_MISUSES = {
    "unknown-option": (["--colour"], "--colour"),
    "argument": (["vm1"], "vm1"),
    "bad-address": (["--listen", "here:there"], "here:there"),
    "bad-number": (["--max-applications", "many"], "max_applications"),
    "no-such-config": (["--config", "/nowhere/at/all"], "/nowhere/at/all"),
    "no-such-keys": (["--keys", "/nowhere/at/all"], "/nowhere/at/all"),
    "keys-of-a-host": (["--keys", "{host}"], "host node1"),
    "port-that-is-taken": (["--listen", "{guest}"], "{guest}"),
}


@pytest.mark.parametrize("misuse", SERVER_MISUSES)
def test_misuse_of_the_server(bed: Bed, tmp_path: Path, misuse: str) -> None:
    """Each way to misuse cmappserver gives 2 and one line that says what is wrong."""
    arguments, reason = SERVER_MISUSES[misuse]
    given = [word.format(guest=bed.server.guest, host=bed.keys.host) for word in arguments]
    places = ["--keys", str(bed.keys.guest), "--state-dir", str(tmp_path / "state"), "--listen", "127.0.0.1:0"]
    if "--listen" in given:
        del places[-2:]
    done = run([SERVER, *places, *given])
    assert done.returncode == 2
    assert done.stderr.count("cmappserver: ") == 1
    assert reason.replace("{guest}", bed.server.guest) in done.stderr.splitlines()[-1]


def test_two_servers_on_one_state(bed: Bed, tmp_path: Path) -> None:
    """Two servers never share a state folder."""
    common = [SERVER, "--keys", str(bed.keys.guest), "--listen", "127.0.0.1:0", "--state-dir"]
    server = bed.serve()
    [state] = tmp_path.glob("server-*/state")
    done = run([*common, str(state)])
    assert done.returncode == 2
    assert "in use by another cmappserver" in done.stderr
    assert server.process.poll() is None


def test_check(bed: Bed, tmp_path: Path) -> None:
    """--check says that all is well and exits 0, or says what is not, line by line, and exits otherwise."""
    state = ["--state-dir", str(tmp_path / "state")]
    well = run([SERVER, "--check", "--keys", str(bed.keys.guest), *state])
    assert (well.returncode, well.stdout.splitlines()[0]) == (0, "the settings and the keys can be used")
    assert not (tmp_path / "state").exists()
    shutil.copytree(bed.keys.host, tmp_path / "host")
    (tmp_path / "host" / "key.pem").chmod(0o644)
    (tmp_path / "file").touch()
    bad = run([SERVER, "--check", "--keys", str(tmp_path / "host"), "--state-dir", str(tmp_path / "file")])
    assert bad.returncode == 2
    assert len(bad.stdout.splitlines()) == 3
    for word in ("chmod 600", "host node1", "not a folder"):
        assert word in bad.stdout
