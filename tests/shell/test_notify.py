"""What an application says by sd_notify is heard from its own processes only, and never floods us."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.errors import RunError
from cmapp.guest.notify import AT_ONCE, LONGEST, PAUSE, Notice, NotifySocket, parse_notice
from tests.shell.care_bed import Sender, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator

SAID: list[tuple[bytes, Notice]] = [
    (b"READY=1", Notice(ready=True)),
    (
        b"READY=1\nSTATUS=Serving 7\nMAINPID=42\nWATCHDOG=1\n",
        Notice(ready=True, status="Serving 7", main=42, beat=True),
    ),
    (b"STOPPING=1", Notice(stopping=True)),
    (b"WATCHDOG=trigger", Notice(trigger=True)),
    (b"STATUS=", Notice(status="")),
    (b"STATUS=a=b", Notice(status="a=b")),
    (b"STATUS=\x1b[2J\xff", Notice(status="\\x1b[2J\N{REPLACEMENT CHARACTER}")),
    (b"STATUS=" + b"x" * 4000, Notice(status="x" * 300)),
    (b"MAINPID=4194304", Notice(main=4194304)),
    (b"EXTEND_TIMEOUT_USEC=1\nFDSTORE=1\nRELOADING=1\nERRNO=2\nWATCHDOG_USEC=3", Notice()),
]
GARBAGE = [
    b"", b"\n\n", b"\xff" * 4096, b"READY=1\0", b"READY", b"READY=0", b"READY=11", b"ready=1", b" READY=1", b"=1",
    b"MAINPID=", b"MAINPID=-1", b"MAINPID=1", b"MAINPID=0", b"MAINPID=4194305", b"MAINPID= 7", b"MAINPID=\xb2",
    "MAINPID=²".encode(), b"MAINPID=" + b"9" * 4000, b"WATCHDOG=2", b"STOPPING=yes",
]  # fmt: skip


@pytest.mark.parametrize(("data", "notice"), SAID, ids=[ascii(data)[:30] for data, _ in SAID])
def test_what_is_said(data: bytes, notice: Notice) -> None:
    """Several things may be said at once, and what is not ours is passed over."""
    assert parse_notice(data) == notice


@pytest.mark.parametrize("data", GARBAGE, ids=[ascii(data)[:30] for data in GARBAGE])
def test_garbage(data: bytes) -> None:
    """What is no sentence of sd_notify says nothing."""
    assert parse_notice(data) == Notice()


class Bed:
    """A notification socket, what it heard, and the processes that it owns."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self.heard: list[Notice] = []
        self.owned: set[int] = set()
        self.sockets: list[NotifySocket] = []
        self.senders: list[Sender] = []

    def listen(self, descriptor: int | None = None) -> NotifySocket:
        """Bind the socket, or take it over."""
        loop = asyncio.get_running_loop()
        self.sockets.append(NotifySocket(loop, self.path, self.heard.append, self.owned.__contains__, descriptor))
        self.sockets[-1].start()
        return self.sockets[-1]

    def sender(self, *, owned: bool = True, user: int = 0) -> Sender:
        """Start a process of the run's tree, or a stranger."""
        self.senders.append(Sender(self.path, user))
        self.owned |= {self.senders[-1].pid} if owned else set()
        return self.senders[-1]

    async def hears(self, *notices: Notice) -> None:
        """Wait until these, and no others, were heard."""
        await until(lambda: len(self.heard) >= len(notices))
        assert self.heard == list(notices)
        self.heard.clear()


@pytest.fixture
def bed() -> Iterator[Bed]:
    """Return a bed in a folder that every user may enter; nobody but root can become another."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - as the server's
        bed = Bed(Path(folder))
        yield bed
        for sender in bed.senders:
            sender.close()


def test_owned_processes_are_heard(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    """A process of the tree is heard in order, a stranger is not, and the log tells of strangers once."""

    async def main() -> None:
        sock = bed.listen()
        ours, stranger = bed.sender(), bed.sender(owned=False)
        for _ in range(3):
            stranger.send(b"READY=1")
            stranger.sent()
        ours.send(b"STATUS=one")
        ours.send(b"READY=1\nSTATUS=two")
        await bed.hears(Notice(status="one"), Notice(ready=True, status="two"))
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert told == [f"{bed.path}: process {stranger.pid} is not of this run, or ended too soon: it is not heard"]
        sock.close(remove=True)
        assert not os.path.exists(bed.path)  # noqa: ASYNC240, PTH110 - our loop may wait

    run(main())


def test_user_of_the_application(bed: Bed) -> None:
    """An application that runs as somebody else can send."""

    async def main() -> None:
        sock = bed.listen()
        assert stat.S_IMODE(os.stat(bed.path).st_mode) == 0o666  # noqa: PTH116
        bed.sender(user=65534 if os.getuid() == 0 else 0).send(b"READY=1")
        await bed.hears(Notice(ready=True))
        sock.close(remove=True)

    run(main())


def test_main_process_must_be_owned(bed: Bed) -> None:
    """Nobody has the server watch a stranger."""

    async def main() -> None:
        sock = bed.listen()
        ours, stranger = bed.sender(), bed.sender(owned=False)
        ours.send(f"MAINPID={stranger.pid}".encode())
        ours.send(f"MAINPID={stranger.pid}\nREADY=1".encode())
        ours.send(f"MAINPID={ours.pid}".encode())
        await bed.hears(Notice(ready=True), Notice(main=ours.pid))
        sock.close(remove=True)

    run(main())


def test_what_is_too_long(bed: Bed) -> None:
    """A datagram that was cut off is not guessed at."""

    async def main() -> None:
        sock = bed.listen()
        ours = bed.sender()
        ours.send(b"READY=1\n" + b"X" * LONGEST)
        ours.send(b"READY=1\nX=" + b"X" * (LONGEST - 10))
        ours.send(b"STATUS=done")
        await bed.hears(Notice(ready=True), Notice(status="done"))
        sock.close(remove=True)

    run(main())


def test_barrier(bed: Bed) -> None:
    """A sender that waits by BARRIER=1 sees its descriptor closed once it was heard, and we keep none."""

    async def main() -> None:
        sock = bed.listen()
        bed.owned.add(os.getpid())
        reading, writing = os.pipe()
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            ours.connect(bed.path)
            ours.send(b"READY=1")
            socket.send_fds(ours, [b"BARRIER=1"], [writing] * 3)
        os.close(writing)
        closed = asyncio.Event()
        asyncio.get_running_loop().add_reader(reading, closed.set)
        await asyncio.wait_for(closed.wait(), 20)
        assert os.read(reading, 1) == b""
        assert bed.heard == [Notice(ready=True)]
        assert len(os.listdir("/proc/self/fd")) == before - 1  # noqa: PTH208
        asyncio.get_running_loop().remove_reader(reading)
        os.close(reading)
        sock.close(remove=True)

    run(main())


def test_flood(bed: Bed) -> None:
    """Who sends without end waits, and the loop goes on with other things."""

    async def main() -> None:
        sock = bed.listen()
        flooder, ours = bed.sender(owned=False), bed.sender()
        bed.owned.add(flooder.pid)
        flooder.send(b"STATUS=x")
        await until(lambda: bed.heard)
        bed.heard.clear()
        started, turns = time.monotonic(), 0
        flooder.send(b"FLOOD=1")
        ours.send(b"WATCHDOG=1")
        while time.monotonic() < started + 1 or not bed.heard:
            turns += 1
            await asyncio.sleep(0.01)
            assert time.monotonic() < started + 20
        assert turns > 10
        assert bed.heard == [Notice(beat=True)]
        sock.close(remove=True)

    run(main())


def test_flood_is_read_slowly(bed: Bed) -> None:
    """What makes us work, and every datagram does, is taken at a bounded pace."""

    async def main() -> None:
        sock = bed.listen()
        looked = 0
        ours = bed.sender()

        def owns(pid: int) -> bool:
            nonlocal looked
            looked += 1
            return pid == ours.pid

        sock._owns = owns
        started = time.monotonic()
        ours.send(b"FLOOD=1")
        await asyncio.sleep(1)
        assert 0 < looked <= AT_ONCE * ((time.monotonic() - started) / PAUSE + 1)
        sock.close(remove=True)

    run(main())


def test_next_server_binds_anew(bed: Bed) -> None:
    """After a restart the application, which still knows the path, is heard again."""

    async def main() -> None:
        sock = bed.listen()
        ours = bed.sender()
        ours.send(b"STATUS=one")
        await bed.hears(Notice(status="one"))
        sock.close(remove=False)
        assert os.path.exists(bed.path)  # noqa: ASYNC240, PTH110 - our loop may wait
        sock = bed.listen()
        ours.send(b"STATUS=two")
        await bed.hears(Notice(status="two"))
        sock.close(remove=True)

    run(main())


def test_handed_over(bed: Bed) -> None:
    """In an upgrade the socket itself is handed on: what was said meanwhile is not lost."""

    async def main() -> None:
        sock = bed.listen()
        ours = bed.sender()
        kept = os.dup(sock.descriptor)
        sock.close(remove=False)
        ours.send(b"READY=1")
        ours.sent()
        sock = bed.listen(kept)
        await bed.hears(Notice(ready=True))
        sock.close(remove=True)

    run(main())


@pytest.mark.parametrize("room", [1, AT_ONCE])
def test_closed_by_what_was_heard(bed: Bed, room: int) -> None:
    """Who hears may close the socket at once: the rest of what is in it is not read."""

    async def main() -> None:
        heard: list[Notice] = []

        def hear(notice: Notice) -> None:
            heard.append(notice)
            sock.close(remove=True)

        ours = bed.sender()
        sock = NotifySocket(asyncio.get_running_loop(), bed.path, hear, bed.owned.__contains__)
        for _ in range(3):
            ours.send(b"READY=1")
            ours.sent()
        sock._since, sock._room = time.monotonic() + 20, room
        sock.start()
        await until(lambda: heard)
        await asyncio.sleep(0.05)
        assert len(heard) == 1

    run(main())


@pytest.mark.parametrize("path", ["/nowhere/notify", "/tmp/" + "x" * 108, "/proc/self"])  # noqa: S108
def test_path_that_cannot_be(path: str) -> None:
    """A socket that cannot be made is said to be so, with its path."""

    async def main() -> None:
        with pytest.raises(RunError) as refusal:
            NotifySocket(asyncio.get_running_loop(), path, lambda _: None, lambda _: True)
        assert str(refusal.value).startswith(f"its notification socket {path} cannot be made: ")
        assert "None" not in str(refusal.value)

    run(main())
