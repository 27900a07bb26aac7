"""Syslog: what a syslogd would read on /dev/log, which the test is, in a mount namespace with a /dev of its own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.bed import Manager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.bed import Bed

# RFC 3164, as a local program writes it: no host name, for syslogd knows where it runs.
RFC3164 = re.compile(
    r"<(?P<priority>\d{1,3})>"
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (?: [1-9]|[12]\d|3[01]) [0-2]\d:[0-5]\d:[0-5]\d "
    r"(?P<tag>[A-Za-z0-9]{1,32})\[(?P<pid>\d+)\]: (?P<content>[ -~]*)"
)
DAEMON, ERROR, WARNING, INFO = 3, 3, 4, 6
PRIVATE_DEV = 'mount --bind "$1" /dev && shift && exec "$@"'


class Syslogd:
    """A /dev for a manager, in which this test is the syslogd."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("null", "full"):
            os.mknod(folder / name, 0o666 | 0o020000, Path(f"/dev/{name}").stat().st_rdev)
        self.listen()

    def listen(self) -> None:
        """Take the place of the syslogd before, if there was one."""
        (self.folder / "log").unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.folder / "log"))

    def receive(self, limit: float = 20.0) -> re.Match[str]:
        """Return the next message, which must be one of RFC 3164."""
        self._socket.settimeout(limit)
        message = self._socket.recv(65536).decode()
        found = RFC3164.fullmatch(message)
        assert found, message
        return found

    def receive_rest(self) -> list[re.Match[str]]:
        """Return all messages that have come."""
        messages = []
        with suppress(BlockingIOError):
            while True:
                messages.append(self.receive(0))
        return messages

    def close(self) -> None:
        """Be no syslogd any more."""
        self._socket.close()

    def start(self, bed: Bed, *argv: str, name: str = "logged") -> Manager:
        """Start a manager that has this /dev."""
        folder = bed.folder / name
        folder.mkdir()
        command = bed.command(folder, name, argv, options=["--syslog"])
        private = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", PRIVATE_DEV, "sh", str(self.folder)]
        return bed.adopt(Manager(folder, name, [*private, *command]))


@pytest.fixture
def syslogd() -> Iterator[Syslogd]:
    """A syslogd for managers that are started through it."""
    probe = ["unshare", "--mount", "/bin/sh", "-c", "mount --bind /tmp /mnt"]
    if os.getuid() != 0 or subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace of our own here: that takes root and CAP_SYS_ADMIN")
    folder = Path(tempfile.mkdtemp(prefix="cmapp-dev-"))  # a socket's path must be short
    made = Syslogd(folder)
    yield made
    made.close()
    shutil.rmtree(folder)


def test_messages(bed: Bed, syslogd: Syslogd) -> None:
    """Each message is one of RFC 3164: the daemon facility, cmappmgr with its pid, and the words of the package log."""
    manager = syslogd.start(bed, "/bin/sh", "-c", "exit 3")
    assert manager.wait() == 3
    messages = syslogd.receive_rest()
    assert len(messages) == len(manager.log.splitlines())
    for message, line in zip(messages, manager.log.splitlines(), strict=True):
        assert int(message["priority"]) >> 3 == DAEMON
        assert (message["tag"], int(message["pid"])) == ("cmappmgr", manager.process.pid)
        assert line.endswith(f"cmappmgr[{manager.process.pid}] {message['content']}")
    severities = [int(message["priority"]) & 7 for message in messages]
    assert severities == [INFO] * (len(messages) - 1) + [ERROR]
    assert "logged on 127.0.0.1: ERROR: exited with code 3" in messages[-1]["content"]


def test_usage_is_told_too(bed: Bed, syslogd: Syslogd) -> None:
    """Why nothing could be launched stands in syslog as well: a cluster's administrator looks there."""
    folder = bed.keys.host
    (bed.folder / "logged").mkdir()
    command = bed.command(bed.folder / "logged", "logged", ["/bin/true"], options=["--syslog"])
    command[command.index(str(folder))] = "/nowhere"
    private = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", PRIVATE_DEV, "sh", str(syslogd.folder)]
    assert bed.adopt(Manager(bed.folder / "logged", "logged", [*private, *command])).wait() == 125
    [message] = syslogd.receive_rest()
    assert int(message["priority"]) == DAEMON << 3 | ERROR
    assert "cannot read /nowhere/cert.pem" in message["content"]


def test_restarted_syslogd(bed: Bed, syslogd: Syslogd) -> None:
    """A syslogd that is restarted gets what is told from then on."""
    manager = syslogd.start(bed, "/bin/sleep", "1000")
    manager.until_launched()
    syslogd.close()
    syslogd.listen()
    manager.process.terminate()
    assert manager.wait() == 143
    assert "was killed by signal 15" in syslogd.receive_rest()[-1]["content"]


def test_syslogd_that_hangs(bed: Bed, syslogd: Syslogd) -> None:
    """A syslogd that reads nothing holds nothing up."""
    managers = [syslogd.start(bed, "/bin/sh", "-c", "exit 3", name=f"logged-{number}") for number in range(12)]
    assert [manager.wait(30) for manager in managers] == [3] * 12


def test_no_syslogd(bed: Bed, syslogd: Syslogd) -> None:
    """Without a syslogd all goes on."""
    syslogd.close()
    (syslogd.folder / "log").unlink()
    assert syslogd.start(bed, "/bin/sh", "-c", "exit 3").wait() == 3
