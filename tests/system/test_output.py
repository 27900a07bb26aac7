"""What an application writes: passed on as asked, never holding it up, and what is dropped is told of."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.processes import paused, until, until_gone, until_written

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed, Manager

FLOOD = 100_000_000
LINE = "0123456789" * 9
FLOOD_SCRIPT = f"yes {LINE} | head -c {FLOOD}; exit 9"
QUOTE = re.compile(r"^\w{3} [ \d]\d \d\d:\d\d:\d\d - .*?: (stdout|stderr): (.*)$", re.MULTILINE)


def quotes(manager: Manager) -> list[tuple[str, str]]:
    """Return what the package log quotes of the application, as (stream, line)."""
    return [(found[1], found[2]) for found in QUOTE.finditer(manager.log)]


def missing(manager: Manager) -> int:
    """Return how many bytes the package log says are missing."""
    return sum(int(number) for number in re.findall(r"WARNING: (\d+) bytes of its std", manager.log))


def test_none(bed: Bed) -> None:
    """With --output none, which is the default, nothing of the output is to be found anywhere."""
    manager = bed.run("/bin/sh", "-c", "echo secret-word; echo secret-word >&2; exit 3")
    assert manager.wait() == 3
    assert quotes(manager) == []
    assert manager.stdout == b""
    assert manager.stderr == ""


def test_stdout(bed: Bed) -> None:
    """With --output stdout both streams go to cmappmgr's own, byte by byte, with nothing added."""
    script = r"printf 'a\0\377\n'; printf 'b\001\n' >&2; printf end; exit 3"
    manager = bed.run("/bin/sh", "-c", script, options=["--output", "stdout"])
    assert manager.wait() == 3
    assert manager.stdout == b"a\0\xff\nend"
    assert manager.stderr == "b\x01\n"


def test_log(bed: Bed) -> None:
    """With --output log each line stands in the package log under its stream, the last one without a newline too."""
    script = "echo one; echo; echo two words; echo bad >&2; printf 'no newline'; exit 3"
    manager = bed.run("/bin/sh", "-c", script, options=["--output", "log"])
    assert manager.wait() == 3
    assert [line for stream, line in quotes(manager) if stream == "stdout"] == ["one", "", "two words", "no newline"]
    assert [line for stream, line in quotes(manager) if stream == "stderr"] == ["bad"]
    assert "exited with code 3" in manager.last_line


def test_no_forged_lines(bed: Bed) -> None:
    """Whatever an application writes, it cannot make a line of the log that is not marked as its own."""
    script = r"printf '\rNov 22 10:00:00 - Node \033[2J\n\200\377\342\200\250x\n'"
    manager = bed.run("/bin/sh", "-c", script, options=["--output", "log"])
    assert quotes(manager) == [
        ("stdout", r"\rNov 22 10:00:00 - Node \x1b[2J"),
        ("stdout", r"\x80\xff\u2028x"),
    ]
    assert all(line.isprintable() for line in manager.log.split("\n"))


def test_last_words(bed: Bed) -> None:
    """What an application writes right before it exits is not lost: a full pipe of it arrives, ten times out of ten."""
    script = "head -c 65536 /dev/zero; kill -9 $$"
    managers = bed.run_all([("/bin/sh", "-c", script)] * 10, options=["--output", "stdout"])
    assert [(manager.wait(), len(manager.stdout)) for manager in managers] == [(137, 65536)] * 10


@pytest.mark.parametrize("where", ["none", "log", "stdout"])
def test_flood(bed: Bed, where: str) -> None:
    """100 MB of output neither hold the application up nor cost its exit code, and every missing byte is counted."""
    manager = bed.run("/bin/sh", "-c", FLOOD_SCRIPT, options=["--output", where])
    assert manager.wait() == 9
    assert manager.result["lasted"] < 30
    arrived = {"none": FLOOD, "stdout": len(manager.stdout), "log": 0}[where]
    if where != "log":  # which has lines that were cut by a gap
        assert arrived + missing(manager) == FLOOD
    else:
        written = sum(len(line) for _, line in quotes(manager))
        assert 0 <= FLOOD - missing(manager) - written <= len(quotes(manager))


@pytest.mark.parametrize("where", ["log", "stdout"])
def test_flood_to_a_reader_that_stalls(bed: Bed, where: str) -> None:
    """A reader of ours that stands still holds up neither the application nor its exit code."""
    reading, writing = os.pipe()
    options = ["--output", where, "--poll-interval", "200ms"]
    outlet: dict[str, Any] = {"stdout": writing} if where == "stdout" else {"stderr": writing}
    if where == "log":
        options += ["--log-file", "/dev/stderr"]
    manager = bed.start("/bin/sh", "-c", FLOOD_SCRIPT, options=options, **outlet)
    os.close(writing)
    try:
        assert manager.wait() == 9
        assert manager.result["lasted"] < 30
    finally:
        os.close(reading)


def test_flood_past_a_manager_that_stands_still(bed: Bed, tmp_path: Path) -> None:
    """What came while cmappmgr stood still, up to the application's end, is passed on or counted as missing."""
    script = f"until [ -e go ]; do sleep 0.05; done; {FLOOD_SCRIPT}"
    manager = bed.start("/bin/sh", "-c", script, options=["--output", "stdout", "--cwd", str(tmp_path)])
    application = manager.until_launched()
    manager.process.send_signal(signal.SIGSTOP)
    until(lambda: paused(manager.process.pid), "its pause")
    (tmp_path / "go").touch()
    until_gone(application)
    manager.process.send_signal(signal.SIGCONT)
    assert manager.wait() == 9
    assert missing(manager) > FLOOD // 2
    assert len(manager.stdout) + missing(manager) == FLOOD


def test_reader_that_left(bed: Bed) -> None:
    """A reader that has gone costs no exit code: what it would have read is discarded, and the log says so."""
    reading, writing = os.pipe()
    os.close(reading)
    manager = bed.start("/bin/sh", "-c", "echo hello; exit 9", options=["--output", "stdout"], stdout=writing)
    os.close(writing)
    assert manager.wait() == 9
    assert "WARNING: its stdout is discarded" in manager.log


def test_full_disk_under_standard_output(bed: Bed) -> None:
    """Standard output on a full disk costs no exit code either."""
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - as short as it gets
        manager = bed.start("/bin/sh", "-c", "echo hello; exit 9", options=["--output", "stdout"], stdout=full)
    assert manager.wait() == 9
    assert "No space left on device" in manager.log


def test_closed_output(bed: Bed, tmp_path: Path) -> None:
    """An application that closes its output has not ended, and is watched on."""
    closed = tmp_path / "closed"
    manager = bed.start(
        "/bin/sh",
        "-c",
        f"exec 1>&- 2>&-; echo > {closed}; exec sleep 1000",
        options=["--verbose", "--poll-interval", "50ms"],
    )
    until_written(closed)
    log = len(manager.log)
    until(lambda: "running, pid" in manager.log[log:], "a report after the output was closed")
    os.kill(manager.until_launched(), signal.SIGTERM)
    assert manager.wait() == 143


def test_output_that_outlives_the_application(bed: Bed, tmp_path: Path) -> None:
    """A child that keeps the output open does not hold up the news of the application's end, nor outlive it."""
    child = tmp_path / "child"
    manager = bed.start(
        "/bin/sh", "-c", f"sleep 1000 & echo $! > {child}; echo bye; exit 6", options=["--output", "stdout"]
    )
    assert manager.wait(10) == 6
    assert manager.stdout == b"bye\n"
    until_gone(int(until_written(child)))


def test_standard_output_of_cmappmgr_stays_clean(bed: Bed) -> None:
    """Without --log-file the package log goes to standard error, and nothing to standard output."""
    command = bed.command(bed.folder, "clean", ["/bin/sh", "-c", "exit 5"])
    at = command.index("--log-file")
    del command[at : at + 2]
    done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 5
    assert done.stdout == ""
    assert "exited with code 5" in done.stderr.splitlines()[-1]
