"""The application's output on its way through the manager: whole, bounded, and with every loss told."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited
from cmapp.host.journal import Journal
from cmapp.host.output import BUFFER, BURST, Sink, ToLog, _Outlet
from tests.shell.manager_bed import SOON, Guest, receipt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLOOD = 3 * BUFFER  # bytes: more than a pipe and our buffer hold


@pytest.fixture
def guest(key_folders: Path, tmp_path: Path) -> Iterator[Guest]:
    """Return a guest that a manager can call."""
    made = Guest(key_folders, tmp_path)
    yield made
    made.close()


def chunks(stream: m.Stream, data: bytes) -> list[m.Output]:
    """Return the messages in which a server sends `data`."""
    size = m.OUTPUT_CHUNK
    return [m.Output(stream, at, data[at : at + size]) for at in range(0, len(data), size)]


def test_output_to_stdout(guest: Guest) -> None:
    """Every byte comes through, to the stream that it was written to."""
    data = bytes(range(256)) * 4096
    manager, peer, launch = guest.launched("--output", "stdout", stdout=subprocess.PIPE)
    assert launch.output
    peer.say(*chunks(m.Stream.STDERR, b"oh \xff\n"), *chunks(m.Stream.STDOUT, data[: BUFFER // 2]))
    peer.say(m.Exited(receipt(launch, Exited(0))))
    out, _ = manager.process.communicate(timeout=SOON)
    assert out == data[: BUFFER // 2]
    assert b"oh \xff\n" in manager.stderr.read_bytes()
    assert manager.ends() == 0


def test_output_is_not_asked_for(guest: Guest) -> None:
    """Output that nobody wants is not sent."""
    _, _, launch = guest.launched()
    assert not launch.output


def test_output_that_nobody_reads(guest: Guest) -> None:
    """A reader that is stuck neither makes the manager miss a poll nor grow; what it loses is told at the end."""
    manager, peer, launch = guest.launched("--output", "stdout", "--poll-interval", "10ms", stdout=subprocess.PIPE)
    assert manager.process.stdout is not None
    held = fcntl.fcntl(manager.process.stdout, fcntl.F_GETPIPE_SZ)
    peer.say(*chunks(m.Stream.STDOUT, bytes(FLOOD)))
    for _ in range(3):
        peer.report(launch)
    peer.say(m.Exited(receipt(launch, Exited(1))))
    assert manager.ends() == 1
    assert f"WARNING: {FLOOD - held} bytes of its stdout were dropped: nobody read them in time" in manager.lines()[-1]
    assert "exited with code 1" in manager.lines()[-2]


def test_output_is_bounded() -> None:
    """What waits for a reader never grows beyond its bound, and the rest is counted."""
    outlet = _Outlet(1)
    outlet.put(bytes(10))
    outlet.put(bytes(FLOOD))
    assert (len(outlet.buffer), outlet.lost) == (BUFFER, FLOOD + 10 - BUFFER)


def test_output_that_is_read_late(guest: Guest) -> None:
    """What waits in the buffer is written when the reader comes, without a further message from the guest."""
    manager, peer, launch = guest.launched("--output", "stdout", "--poll-interval", "1h", stdout=subprocess.PIPE)
    assert manager.process.stdout is not None
    peer.say(*chunks(m.Stream.STDOUT, bytes(BUFFER)))
    left = BUFFER
    while left:
        assert select.select([manager.process.stdout], [], [], SOON)[0], f"{left} bytes do not come"
        left -= len(os.read(manager.process.stdout.fileno(), BUFFER))
    peer.say(m.Exited(receipt(launch, Exited(0))))
    assert manager.ends() == 0


@pytest.mark.parametrize("how", ["gone", "closed"])
def test_stdout_that_is_closed(guest: Guest, how: str) -> None:
    """A reader that went away is told once, and the application is watched on."""
    shell = ">&-" if how == "closed" else ""
    manager, peer, launch = guest.launched("--output", "stdout", stdout=subprocess.PIPE, shell=shell)
    assert manager.process.stdout is not None
    manager.process.stdout.close()
    peer.say(*chunks(m.Stream.STDOUT, bytes(FLOOD)))
    peer.say(m.Exited(receipt(launch, Exited(1))))
    assert manager.ends() == 1
    why = "Bad file descriptor" if how == "closed" else "Broken pipe"
    told = [line for line in manager.lines() if "its stdout is discarded from here" in line]
    assert len(told) == 1
    assert told[0].endswith(why)
    assert "exited with code 1" in manager.lines()[-1]


def test_output_to_the_log(tmp_path: Path) -> None:
    """The package log gets whole lines with their stream, long ones in pieces, gaps with their size."""
    path = tmp_path / "log"
    output = ToLog(Journal(str(path), "web on vm1", syslog=None))
    out, err = m.Stream.STDOUT, m.Stream.STDERR
    output.take(m.Output(out, 0, b"one\ntw"))
    output.take(m.Output(err, 0, b"\xff\x1b\n"))
    output.take(m.Output(out, 6, b"o\n\nbroken"))
    output.take(m.Output(out, 1014, b"whole\n" + b"x" * 3000, dropped=1000))
    output.take(m.Output(out, 4020, b"y\nrest"))
    output.end()
    said = [line.partition("web on vm1: ")[2] for line in path.read_text().splitlines()]
    assert said == [
        "stdout: one",
        r"stderr: \xff\x1b",
        "stdout: two",
        "stdout: ",
        "stdout: broken",
        "WARNING: 1000 bytes of its stdout are missing: the server dropped them",
        "stdout: whole",
        "stdout: " + "x" * 2048,
        "stdout: " + "x" * 952 + "y",
        "stdout: rest",
    ]


def test_output_that_floods_the_log(tmp_path: Path) -> None:
    """An application that writes without end neither fills the disk nor keeps the manager from its polls."""
    path = tmp_path / "log"
    output = ToLog(Journal(str(path), "web on vm1", syslog=None))
    flood = chunks(m.Stream.STDOUT, b"y\n" * 1_000_000)
    begun = time.monotonic()
    for message in flood:
        output.take(message)
    output.take(m.Output(m.Stream.STDERR, 0, b"oh\n"))
    output.end()
    assert time.monotonic() - begun < 5
    *lines, last, least = path.read_text().splitlines()
    assert BURST <= len(lines) <= BURST + m.OUTPUT_CHUNK // 2
    assert f"WARNING: {2_000_000 - 2 * len(lines)} bytes of its stdout were left out here: it wrote more" in last
    assert "WARNING: 3 bytes of its stderr were left out" in least


def test_gaps_are_told_together(tmp_path: Path) -> None:
    """The first gap is told at once, those that follow in its wake at the end, whatever is done with the output."""
    path = tmp_path / "log"
    output = Sink(Journal(str(path), "web on vm1", syslog=None))
    for number in range(1, 101):
        output.take(m.Output(m.Stream.STDOUT, number * 10, b"x", dropped=9))
    output.end()
    said = [line.partition("WARNING: ")[2].partition(":")[0] for line in path.read_text().splitlines()]
    assert said == ["10 bytes of its stdout are missing", "891 bytes of its stdout are missing"]


def test_last_words_come_before_the_end(guest: Guest) -> None:
    """The last line of the application, even without a newline, stands before the line of its end."""
    manager, peer, launch = guest.launched("--output", "log")
    peer.say(*chunks(m.Stream.STDERR, b"I am"), m.Exited(receipt(launch, Exited(1))))
    assert manager.ends() == 1
    assert manager.lines()[-2].endswith("web on vm1: stderr: I am")
