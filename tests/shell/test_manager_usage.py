"""How cmappmgr is started: its arguments, its configuration, and a caller that leaves things closed or blocked."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from cmapp.cli.cmappmgr import USAGE
from cmapp.core import messages as m
from cmapp.core.outcome import Exited
from cmapp.core.rules import Kind
from tests.shell.manager_bed import SOON, Guest, receipt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def guest(key_folders: Path, tmp_path: Path) -> Iterator[Guest]:
    """Return a guest that a manager can call."""
    made = Guest(key_folders, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- >&- 2>&-"])
def test_descriptors_that_are_closed(guest: Guest, tmp_path: Path, closed: str) -> None:
    """A socket never becomes our standard error: the server hears nothing but the protocol."""
    log = tmp_path / "log"
    for options in (("--log-file", str(log), "--output", "stdout"), ("--no-syslog",)):
        manager, peer, launch = guest.launched("--poll-interval", "10ms", *options, shell=closed)
        peer.say(m.Output(m.Stream.STDERR, 0, b"to nowhere\n"), m.Output(m.Stream.STDOUT, 0, b"\n"))
        peer.report(launch)
        peer.say(m.Exited(receipt(launch, Exited(3))))
        peer.hear(m.Acknowledge)
        assert manager.ends() == 3
    assert "exited with code 3" in log.read_text()


def test_signals_that_were_blocked(guest: Guest) -> None:
    """Who starts us with signals blocked can stop us all the same."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        manager, peer, _ = guest.launched()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    manager.signal(signal.SIGTERM)
    peer.hear(m.Stop)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: GUEST[:PORT] (see cmappmgr --help)"),
        (["vm1"], f"there is no -- before the command: the usage is {USAGE}"),
        (["vm1", "web"], f"there is no -- before the command: the usage is {USAGE}"),
        (["vm1", "--"], "there is no command: end the command line with -- COMMAND [ARG...]"),
        (["vm1", "web", "--", "web"], "web is neither an option nor GUEST[:PORT] (see cmappmgr --help)"),
        (["--name", "vm1", "--", "web"], "the following arguments are required: GUEST[:PORT] (see cmappmgr --help)"),
        (["vm\n1", "--", "web"], r"'vm\n1' is not an address"),
        (["vm1:0", "--", "web"], "'vm1:0' has no usable port"),
        (["--config", "/nowhere", "vm1", "--", "web"], "/nowhere: there is no such configuration file"),
        (["--keys", "/nowhere", "vm1", "--", "web"], "cannot read /nowhere/cert.pem"),
        (["--output", "tape", "vm1", "--", "web"], "the command line: output must be one of none, log, stdout"),
        (["--pid-file", "/run/x", "vm1", "--", "web"], "--pid-file is of use with --type forking only"),
        (["--ready", "soon", "vm1", "--", "web"], "the command line: ready is wrong: 'soon' does not say when"),
        (["vm1", "--", "/"], "'', from the command, cannot name an application"),
    ],
)  # fmt: skip
def test_usage(guest: Guest, arguments: list[str], sentence: str) -> None:
    """Wrong usage is one line on stderr that says what is wrong, and exit code 125."""
    manager = guest.start(*arguments)
    assert manager.ends() == 125
    (line,) = manager.lines()
    assert line.startswith(f"cmappmgr: {sentence}")


def test_usage_is_told_to_the_log(guest: Guest, tmp_path: Path) -> None:
    """Where the package log is known, it says why nothing is watched."""
    log = tmp_path / "log"
    manager = guest.start("--log-file", str(log), "--keys", "/nowhere", "vm1", "--", "web")
    assert manager.ends() == 125
    assert "web on vm1: ERROR: cannot read /nowhere/cert.pem" in log.read_text()
    assert len(manager.lines()) == 1


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_questions(guest: Guest, option: str) -> None:
    """A question is answered on stdout."""
    manager = guest.start(option, stdout=subprocess.PIPE)
    out, _ = manager.process.communicate(timeout=SOON)
    assert b"cmappmgr" in out
    assert manager.ends() == 0


def test_identity_belongs_to_one_start(guest: Guest, tmp_path: Path) -> None:
    """A run id in a file would make one run of all starts, so it can only be given on the command line."""
    config = tmp_path / "conf"
    config.write_text('run_id = "01234567-89ab-4def-8123-456789abcdef"\n')
    manager = guest.start("--config", str(config), "vm1", "--", "web")
    assert manager.ends() == 125
    assert manager.lines() == [f"cmappmgr: {config}: run_id can only be given on the command line"]


def test_options_in_a_file(guest: Guest, tmp_path: Path) -> None:
    """What is a list or a table there means the same as on the command line."""
    config = tmp_path / "conf"
    config.write_text('health_command = ["/bin/check", "a b"]\ntype = "notify"\n[limit]\nmemory = "1M:2M"\nnofile = 9')
    _, _, launch = guest.launched("--config", str(config), "--stop-command", "/bin/stop 'a b'")
    assert launch.health is not None
    assert launch.health.command == ("/bin/check", "a b")
    assert launch.stop.command == ("/bin/stop", "a b")
    assert launch.limits == {"memory": (1 << 20, 2 << 20), "nofile": (9, 9)}
    assert launch.kind is Kind.NOTIFY


def test_command_is_not_touched(guest: Guest, tmp_path: Path) -> None:
    """What stands after the first -- is the command, whatever it looks like, and a file can hold the rest."""
    config = tmp_path / "conf"
    config.write_text('name = "shop"\nuser = "www"\npoll_interval = "90s"\n[env]\nLANG = "C"\n')
    words = ("/bin/web", "--name", "x", "--", "-v", "", "\u00e4 b\n")
    manager, _, launch = guest.launched("--config", str(config), "--user", "web", "--umask", "077", command=words)
    assert launch.argv == words
    assert (launch.name, launch.user, launch.umask, launch.env) == ("shop", "web", 0o077, {"LANG": "C"})
    manager.says("polled every 90 s")
