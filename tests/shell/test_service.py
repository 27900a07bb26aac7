"""What the server says to the machine: lines that systemd's journal understands, and its state."""

from __future__ import annotations

import logging
import os
import re
import socket
from typing import TYPE_CHECKING

import pytest

from cmapp.core.outcome import Exited
from cmapp.guest.service import notify, start_logging
from tests.shell.served import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

# As systemd sets it: the device and the inode of the stderr that leads to the journal.
JOURNALED = ("sh", "-c", 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"', "sh", *COMMAND)
TIMED = re.compile(r"[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d (INFO|WARNING|ERROR): ")


def test_lines_for_a_person(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Without the journal every line has a time and a level."""
    server = serve()
    caller = call(server)
    assert caller.run("true").outcome == Exited(0)
    caller.close()
    server.stop()
    assert len(server.lines) > 3
    assert all(TIMED.match(line) for line in server.lines)


def test_lines_for_the_journal(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Under systemd every line has a priority, by its level, and no time of its own."""
    server = serve(command=JOURNALED)
    caller = call(server)
    caller.refused("/nowhere")
    caller.close()
    server.logged("^<6>listening on")
    server.logged("^<6>manager n1 at .* connected$")
    server.logged("^<4>.*not started")
    server.stop()
    assert all(re.match(r"<[346]>(?!\w{3} \d\d )", line) for line in server.lines)


def test_journal_that_is_not_ours(serve: Callable[..., Served]) -> None:
    """The variable alone is not believed: who inherited it may have sent its stderr elsewhere."""
    server = serve(command=("env", "JOURNAL_STREAM=8:12345", *COMMAND))
    assert TIMED.match(server.lines[0])


@pytest.mark.parametrize(("level", "seen"), [("debug", 3), ("info", 3), ("warning", 1), ("error", 0)])
def test_levels(capfd: pytest.CaptureFixture[str], logger: logging.Logger, level: str, seen: int) -> None:
    """Nothing below the level is logged."""
    start_logging(level)
    for said in (logging.DEBUG, logging.INFO, logging.INFO, logging.WARNING):
        logger.log(said, "x")
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == seen + (level == "debug")


def test_one_line_a_record(capfd: pytest.CaptureFixture[str], logger: logging.Logger) -> None:
    """Whatever stands in a record, it is one printable line."""
    start_logging("info")
    logger.info("%s and %s", "a\nb\r\x1b[0m", "\u2029\x00π")
    assert capfd.readouterr().err.endswith(" INFO: a\\nb\\r\\x1b[0m and \\u2029\\x00π\n")


def test_notices(serve: Callable[..., Served]) -> None:
    """Systemd is told when the server is ready and when it stops; readiness comes after it listens."""
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port)):
        pass
    server.stop()
    assert server.notice() == "STOPPING=1"


@pytest.mark.parametrize("abstract", [True, False])
def test_notify(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, abstract: bool) -> None:
    """Both kinds of sockets that systemd may ask for are served."""
    name = f"cmapp-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind("\0" + name if abstract else name)
        notices.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        notify("READY=1")
        assert notices.recv(100) == b"READY=1"


@pytest.mark.usefixtures("logger")
def test_notify_who_does_not_listen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A systemd that takes no more notices holds nobody up for long."""
    monkeypatch.setattr("cmapp.guest.service._PATIENCE", 0.01)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    start_logging("info")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        said = ""
        while "systemd was not told READY=1: timed out" not in said:
            notify("READY=1")
            said += capfd.readouterr().err


@pytest.mark.usefixtures("logger")
@pytest.mark.parametrize("where", ["", "/nowhere/socket", "@cmapp-nobody-listens-here"])
def test_notify_nobody(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], where: str) -> None:
    """A server that nobody asks for its state says nothing, and one whose asker is gone goes on with a warning."""
    start_logging("info")
    monkeypatch.setenv("NOTIFY_SOCKET", where)
    notify("RELOADING=1\nMONOTONIC_USEC=1")
    said = capfd.readouterr().err
    assert said.count("systemd was not told RELOADING=1: ") == bool(where)
    assert said.count("\n") == bool(where)


def test_log_that_nobody_reads(monkeypatch: pytest.MonkeyPatch, logger: logging.Logger) -> None:
    """A stderr that stands full holds nobody up; when there is room again, the log says how much was lost."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        start_logging("info")
        os.set_blocking(writing, False)
        full = os.write(writing, bytes(1 << 24))
        os.set_blocking(writing, True)
        logger.info("one")
        logger.info("two")
        assert len(reader.read(full)) == full
        logger.info("three")
        lost, three = reader.read(full).decode().splitlines()
    assert lost.endswith("INFO: 2 lines of this log were lost: nobody read them, or there was no room")
    assert three.endswith("INFO: three")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Return a logger, with all that `start_logging` changes put back at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield logging.getLogger("cmapp.test")
    root.handlers[:] = handlers
    root.setLevel(level)
