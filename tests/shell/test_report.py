"""What cmappmgr writes: the package log, syslog and the result file, also where they cannot be written."""

from __future__ import annotations

import fcntl
import os
import re
import select
import socket
import stat
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited
from cmapp.errors import SettingsError
from cmapp.host.journal import BURST, Journal
from tests.shell.manager_bed import SOON, Guest, outcome_in, receipt

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def guest(key_folders: Path, tmp_path: Path) -> Iterator[Guest]:
    """Return a guest that a manager can call."""
    made = Guest(key_folders, tmp_path)
    yield made
    made.close()


@contextmanager
def syslogd(path: Path) -> Iterator[socket.socket]:
    """Listen where syslogd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(SOON)
        yield sock


# ---- the package log -----------------------------------------------------------------------------------------


def test_log_file_is_appended_to(guest: Guest, tmp_path: Path) -> None:
    """The package log keeps what others wrote, is for its owner and group, and leaves stderr alone."""
    log = tmp_path / "package.log"
    for _ in range(2):
        manager, peer, launch = guest.launched("--log-file", str(log))
        peer.say(m.Exited(receipt(launch, Exited(0))))
        assert manager.ends() == 0
    assert stat.S_IMODE(log.stat().st_mode) == 0o640 & ~0o022
    assert [line.split(": ")[2][:8] for line in log.read_text().splitlines()] == [
        "watching",
        "launched",
        "exited w",
    ] * 2
    assert manager.stderr.read_text() == ""


@pytest.mark.parametrize("kind", ["folder", "no folder", "pipe"])
def test_log_file_that_cannot_be_opened(guest: Guest, tmp_path: Path, kind: str) -> None:
    """A package log that cannot be had is told before anything is launched, and nobody waits for a pipe's reader."""
    log = tmp_path / "there"
    if kind == "folder":
        log.mkdir()
    elif kind == "pipe":
        os.mkfifo(log)
    else:
        log = log / "log"
    manager = guest.call("--log-file", str(log))
    assert manager.ends() == 125
    assert re.fullmatch(f"cmappmgr: the package log {log} cannot be opened: .*\n", manager.stderr.read_text())


def test_full_disk(guest: Guest, tmp_path: Path) -> None:
    """A log that cannot be written is told once, to stderr and to syslog, and changes nothing else."""
    with syslogd(tmp_path / "log") as sock:
        manager, peer, launch = guest.launched("--log-file", "/dev/full", syslog=str(tmp_path / "log"))
        peer.say(m.Exited(receipt(launch, Exited(9))))
        assert manager.ends() == 9
        said = [sock.recv(8192).decode() for _ in range(4)]
    trouble = "the package log cannot be written to /dev/full: No space left on device"
    assert manager.stderr.read_text() == f"cmappmgr: {trouble}\n"
    assert [trouble in line for line in said] == [True, False, False, False]


def test_stderr_that_nobody_reads(guest: Guest) -> None:
    """A full pipe as package log costs lines and half a second, not the application's supervision."""
    reader, writer = os.pipe()
    os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)))
    manager, peer, launch = guest.launched("--poll-interval", "10ms", "--verbose", stderr=writer)
    for _ in range(3):
        peer.report(launch)
    peer.say(m.Exited(receipt(launch, Exited(4))))
    assert manager.ends() == 4
    os.close(reader)
    os.close(writer)


def test_lines_cannot_be_forged(tmp_path: Path) -> None:
    """Whatever a text holds, it is one line, and a line fits a pipe."""
    path = tmp_path / "log"
    journal = Journal(str(path), "web on vm1\n", syslog=None)
    journal.error("one\ntwo\r\x1b[31m \u2028 \udcff")
    journal.info("x" * 10_000)
    journal.info("\u00e4" * 10_000)
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 4
    assert lines[0].endswith(rb"web on vm1\n: ERROR: one\ntwo\r\x1b[31m \u2028 \udcff")
    assert all(len(line) < select.PIPE_BUF for line in lines)
    assert lines[1].endswith(b"xxx...")
    assert lines[2].decode().endswith("\u00e4...")


def test_a_guest_cannot_fill_the_log(tmp_path: Path) -> None:
    """Of lines that a hostile guest causes there are so many a minute; errors and the end are told all the same."""
    path = tmp_path / "log"
    journal = Journal(str(path), "web on vm1", syslog=None)
    for number in range(10 * BURST):
        (journal.info if number % 2 else journal.warning)(f"line {number}")
    journal.error("trouble")
    journal.conclude("it ended", well=True)
    lines = [line.partition("web on vm1: ")[2] for line in path.read_text().splitlines()]
    assert lines[BURST - 1] == f"line {BURST - 1}"
    assert lines[BURST:] == [
        f"WARNING: there is too much to say: lines are left out, beyond {BURST} a minute",
        "ERROR: trouble",
        f"WARNING: {9 * BURST} lines were left out",
        "it ended",
    ]


def test_verbose_tells_every_poll(guest: Guest) -> None:
    """Reports are lines for those who want them, and for nobody else."""
    for option, wanted in (("--verbose", True), ("--no-syslog", False)):
        manager, peer, launch = guest.launched(option, "--poll-interval", "10ms")
        peer.report(launch)
        peer.say(m.Exited(receipt(launch, Exited(0))))
        assert manager.ends() == 0
        assert ("running, pid 4711, up 0 ms" in manager.stderr.read_text()) == wanted
        manager.stderr.unlink()


# ---- syslog --------------------------------------------------------------------------------------------------


def test_syslog(guest: Guest, tmp_path: Path) -> None:
    """Syslogd gets what it reads as RFC 3164: daemon facility, our ident and pid, and severities that differ."""
    with syslogd(tmp_path / "log") as sock:
        manager, peer, launch = guest.launched(syslog=str(tmp_path / "log"))
        peer.say(m.Exited(receipt(launch, Exited(2))))
        assert manager.ends() == 2
        said = [sock.recv(8192).decode() for _ in range(3)]
    form = rf"<(\d+)>[A-Z][a-z]{{2}} [ 1-3]\d \d\d:\d\d:\d\d cmappmgr\[{manager.process.pid}\]: web on vm1: (.*)"
    matches = [re.fullmatch(form, line) for line in said]
    assert all(matches)
    assert [int(match[1]) for match in matches if match] == [30, 30, 27]
    assert [match[2] for match in matches if match][2].startswith("ERROR: exited with code 2")


def test_no_syslog(guest: Guest, tmp_path: Path) -> None:
    """Who wants no syslog has none."""
    with syslogd(tmp_path / "log") as sock:
        manager, peer, launch = guest.launched("--no-syslog", syslog=str(tmp_path / "log"))
        peer.say(m.Exited(receipt(launch, Exited(0))))
        assert manager.ends() == 0
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(8192)


def test_syslogd_that_is_full_or_started_again(tmp_path: Path) -> None:
    """A syslogd that does not read loses lines and holds nobody up; one that comes back gets the next line."""
    path = tmp_path / "log"
    journal = Journal("/dev/null", "web on vm1", syslog=str(path))
    journal.info("nobody is there")
    with syslogd(path) as sock:
        for number in range(2000):
            journal.error(f"line {number}")
        assert sock.recv(8192).endswith(b"line 0")
    path.unlink()
    with syslogd(path) as sock:
        journal.error("good morning")
        assert sock.recv(8192).endswith(b"web on vm1: ERROR: good morning")
    assert journal._syslog is not None
    journal._syslog.close()


# ---- the result file -----------------------------------------------------------------------------------------


def test_result_replaces_an_old_one(guest: Guest, tmp_path: Path) -> None:
    """While a run goes on there is no result, so that nobody takes an old one for it."""
    result = tmp_path / "result"
    result.write_text("old")
    manager, peer, _ = guest.launched("--result", str(result), "--link-timeout", "0")
    assert not result.exists()
    peer.close()
    assert manager.ends() == 123
    assert outcome_in(result)["cause"] == "unreachable"
    assert [path.name for path in tmp_path.glob("result*")] == ["result"]
    assert stat.S_IMODE(result.stat().st_mode) == 0o644 & ~0o022


@pytest.mark.parametrize("place", ["/dev/null", "/nowhere/result", "/proc/result"])
def test_result_that_cannot_be_written(guest: Guest, place: str) -> None:
    """A place where no result can be put is told before anything is launched, and a device stays one."""
    manager = guest.call("--result", place)
    assert manager.ends() == 125
    assert manager.lines()[0].startswith(f"cmappmgr: the result {place} cannot be written: ")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_result_that_fails_at_the_end(guest: Guest, tmp_path: Path) -> None:
    """A result that cannot be written in the end is an error in the log; the exit code is the application's."""
    folder = tmp_path / "gone"
    folder.mkdir()
    manager, peer, launch = guest.launched("--result", str(folder / "result"))
    folder.rmdir()
    peer.say(m.Exited(receipt(launch, Exited(8))))
    assert manager.ends() == 8
    assert f"ERROR: the result cannot be written to {folder}/result: No such file" in manager.lines()[-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_result_on_a_full_disk(guest: Guest, tmp_path: Path) -> None:
    """A full disk leaves no half of a result behind."""
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "cmapp-test", full], check=True)
    try:
        (full / "ballast").write_bytes(bytes(4096))
        manager, peer, launch = guest.launched("--result", str(full / "result"))
        peer.say(m.Exited(receipt(launch, Exited(8))))
        assert manager.ends() == 8
        assert "ERROR: the result cannot be written" in manager.lines()[-1]
        assert [path.name for path in full.iterdir()] == ["ballast"]
    finally:
        subprocess.run(["umount", full], check=True)


def test_journal_says_why_it_cannot_be_had(tmp_path: Path) -> None:
    """A package log that cannot be opened is a wrong setting."""
    with pytest.raises(SettingsError, match="cannot be opened: Is a directory"):
        Journal(str(tmp_path), "web on vm1", syslog=None)
