"""What is captured of a stream: every byte at its offset, whoever reads it, and whether or not somebody does."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import stat
import subprocess
import sys
import threading
import tracemalloc
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.guest.disk import Disk
from cmapp.guest.output import PIPE_SIZE, Capture, sweep
from cmapp.guest.spool import Spool
from cmapp.guest.stage import PART

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RUN = "01234567-89ab-cdef-0123-456789abcdef"
WAIT = 60  # seconds: a disk may be slow


class State:
    """What the captures of a server share: a disk, a spool and a state folder; a new one is a new server."""

    def __init__(self, folder: Path, limit: int = 1 << 20) -> None:
        self.folder = folder
        self.disk = Disk(asyncio.new_event_loop())
        self.spool = Spool(self.disk, str(folder), limit)
        self.captures: list[Capture] = []

    def capture(self, stream: m.Stream = m.Stream.STDOUT, *, keep: int = 10, live: bool = True) -> Capture:
        """Return the capture of a stream."""
        capture = Capture(str(self.folder), RUN, stream, keep=keep, spool=self.spool, live=live)
        self.captures.append(capture)
        return capture

    def close(self) -> None:
        """Leave as if killed, but with everything on the disk."""
        assert self.disk.flush(60)
        self.disk.close()
        self.disk.loop.close()
        for capture in self.captures:
            capture.close()


def staged(now: State) -> list[Path]:
    """Return the files in memory of what is not on the disk yet."""
    return list(Path(now.spool.stage.folder).glob(f"{now.spool.stage.prefix}*"))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Callable[..., State]]:
    """Return a function that starts the part of a server that captures, on what the one before has left."""
    states: list[State] = []

    def start(**how: int) -> State:
        if states:
            states[-1].close()
        states.append(State(tmp_path, **how))
        return states[-1]

    yield start
    if states:
        states[-1].close()


@pytest.fixture
def pipe(state: Callable[..., State]) -> Iterator[tuple[Capture, int]]:
    """Return a capture that keeps ten bytes, and the descriptor to write to it."""
    capture = state().capture()
    writing = capture.writer()
    yield capture, writing
    os.close(writing)


def test_capture_keeps_the_last_part(pipe: tuple[Capture, int]) -> None:
    """Whatever the pieces, the last bytes are kept and their place in the stream is known."""
    capture, writing = pipe
    written = b""
    for size in (0, 1, 9, 10, 11, 1, 35):
        piece = bytes(range(size))
        os.write(writing, piece)
        assert capture.read() == piece
        written += piece
        for limit in (0, 1, 9, 10, 11):
            kept = min(limit, 10, len(written))
            assert capture.tail(limit) == (len(written) - kept, written[len(written) - kept :])
        assert len(capture._kept) <= 20


def test_capture_after_its_end(pipe: tuple[Capture, int]) -> None:
    """A closed capture is at its end, says no last words, and may be closed again."""
    capture, writing = pipe
    os.write(writing, b"never read")
    capture.close()
    capture.close()
    assert capture.read() is None
    assert list(capture.last_words()) == []
    assert capture.tail(10) == (0, b"")


def test_since(state: Callable[..., State]) -> None:
    """From any offset on the bytes of the stream are told, from memory or from the disk, with or without waiting."""
    now = state(limit=200)
    capture = now.capture()
    writing = capture.writer()
    written = b""
    told: list[tuple[int, bytes]] = []
    for size in (1, 9, 35, 2, 70, 5, 13, 90, 1):
        os.write(writing, piece := os.urandom(size))
        assert capture.read() == piece
        written += piece
        assert now.disk.flush(60)
        for offset in range(len(written) + 2):
            for most in (1, 7, 1000):
                told.clear()
                capture.fetch(offset, most, lambda at, data: told.append((at, data)))
                assert now.disk.flush(60)
                at, data = told[0]
                assert told == [capture.since(offset, most)]
                first = max(0, len(written) - 150)
                assert at == min(offset, len(written)) if offset >= first else offset <= at <= first
                assert data == written[at : at + len(data)]
                assert 0 < len(data) <= most or at == len(written)
    os.close(writing)


def test_since_without_a_spool(state: Callable[..., State]) -> None:
    """Without a spool there is what memory holds, and what is gone is seen by the offset."""
    capture = state(limit=0).capture()
    writing = capture.writer()
    for number in range(30):
        os.write(writing, b"%03d" % number)
        capture.read()
    at, data = capture.since(0, 1000)
    assert at > 60
    assert data == b"".join(b"%03d" % number for number in range(30))[at:]
    os.close(writing)


ENDLESS = """
import os, sys
for number in range(int(sys.argv[1])):
    os.write(1, b"%07d\\n" % number)
"""


@pytest.mark.parametrize("lines", [1000, 200_000])
def test_application_outlives_its_reader(state: Callable[..., State], lines: int) -> None:
    """An application whose server is killed gets no SIGPIPE; the next one reads on where the first one stopped."""
    capture = state().capture()
    writing = capture.writer()
    command = [sys.executable, "-I", "-S", "-c", ENDLESS, str(lines)]
    process = subprocess.Popen(command, stdout=writing)
    os.close(writing)
    try:
        written = b""
        while len(written) < 4000:
            select.select([capture.descriptor], [], [], 10)
            written += capture.read() or b""
        if lines < PIPE_SIZE // 8:
            # It says all that it has to say and ends while nobody reads: only who still holds the pipe keeps that.
            holder = capture.writer()
            capture = state().capture()
            assert process.wait(10) == 0
            os.close(holder)
        else:
            capture = state().capture()
        assert capture.total == len(written)
        assert capture.since(0, len(written))[0] == 0
        while (data := capture.read()) is not None:
            written += data
            if not data:
                select.select([capture.descriptor], [], [], 10)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    assert written == b"".join(b"%07d\n" % number for number in range(lines))
    assert capture.total == len(written)
    assert capture.tail(10) == (len(written) - 10, written[-10:])


def test_pipe_is_large_and_lasts(pipe: tuple[Capture, int]) -> None:
    """What fits into the pipe can be written without a reader, by an application that may not wait."""
    capture, writing = pipe
    if os.geteuid() == 0:
        assert fcntl.fcntl(capture.descriptor, fcntl.F_GETPIPE_SZ) == PIPE_SIZE
    size = fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)
    capture.close()
    assert os.write(writing, bytes(size)) == size


def test_tail_after_a_restart(state: Callable[..., State]) -> None:
    """The last part of what the server before has read can be had from the next one at once."""
    capture = state().capture()
    writing = capture.writer()
    for piece in (b"0123456", b"789", b"abcdefgh"):
        os.write(writing, piece)
        capture.read()
    capture = state().capture()
    assert capture.tail(100) == (8, b"89abcdefgh")
    os.write(writing, b"ijk")
    capture.read()
    assert capture.tail(5) == (16, b"ghijk")
    assert capture.since(0, 100)[1].startswith(b"0")
    os.close(writing)


def test_rebase(state: Callable[..., State]) -> None:
    """Who knows that more was read than the spool tells has the offsets go on from there, never back."""
    capture = state(limit=0).capture()
    capture.rebase(100)
    assert (capture.total, capture.tail(10), capture.since(0, 10)) == (100, (100, b""), (100, b""))
    writing = capture.writer()
    os.write(writing, b"abc")
    capture.read()
    capture.rebase(50)
    assert (capture.total, capture.tail(10), capture.since(101, 10)) == (103, (100, b"abc"), (101, b"bc"))
    capture.rebase(200)
    assert (capture.total, capture.tail(10), capture.since(101, 10)) == (200, (200, b""), (200, b""))
    os.close(writing)


def test_hole_in_the_spool(state: Callable[..., State]) -> None:
    """What could not be spooled is had from memory as long as it is there, and is a hole for the next server."""
    now = state()
    capture = now.capture()
    writing = capture.writer()

    def write(text: bytes) -> None:
        os.write(writing, text)
        capture.read()
        assert now.disk.flush(60)

    write(b"0123456789abcdefghij")
    now.spool.failed("for the test")
    write(b"KLM")
    now.spool._resume = 0.0
    write(b"nop")
    assert capture.since(0, 100) == (0, b"0123456789abcdefghij")
    assert capture.since(20, 100) == (20, b"KLMnop")
    assert capture.since(16, 100)[1].startswith(b"ghij")
    now = state()
    capture = now.capture()
    assert (capture.total, capture.tail(10)) == (26, (23, b"nop"))
    assert capture.since(20, 100) == (23, b"nop")
    now.spool.failed("for the test")
    write(b"qrstuvwxyz" * 2)
    now.spool._resume = 0.0
    write(b"!")
    assert capture.since(26, 100) == (36, b"qrstuvwxyz!")
    os.close(writing)


@pytest.fixture
def hang(state: Callable[..., State]) -> Iterator[Callable[..., State]]:
    """Return a function that starts the like on a disk that hangs: the next one is started as after a crash."""
    release = threading.Event()
    hung: list[Callable[[], None]] = []

    def start(**how: int) -> State:
        now = state(**how)
        now.disk.do(partial(release.wait, WAIT))
        hung.append(now.close)
        now.close = lambda: None  # type: ignore[method-assign] # as killed, with nothing on the disk
        return now

    yield start
    release.set()
    for close in hung:
        close()


@pytest.mark.parametrize("run", ["goes on", "is over"])
def test_crash_with_unspooled_output(hang: Callable[..., State], state: Callable[..., State], run: str) -> None:
    """What the disk did not take before a crash is there for the next server, whether or not the run goes on."""
    live = run == "goes on"
    capture = hang().capture()
    writing = capture.writer()
    for piece in (b"0123456", b"789", b"abcdefgh"):
        os.write(writing, piece)
        capture.read()
    now = state()
    capture = now.capture(live=live)
    assert (capture.total, capture.tail(10)) == (18, (8, b"89abcdefgh"))
    if live:
        os.write(writing, b"ijk")
        assert capture.read() == b"ijk"
    assert now.disk.flush(WAIT)
    assert staged(now) == []
    at, data = capture.since(0, 100)
    assert at == 0
    assert data + capture.since(len(data), 100)[1] == b"0123456789abcdefgh" + b"ijk" * live
    os.close(writing)


def test_flood_and_a_disk_that_hangs(hang: Callable[..., State], state: Callable[..., State]) -> None:
    """What is staged of a stream is bounded by what waits for the disk; after a crash its last part is there."""
    limit = 1 << 20
    now = hang(limit=limit)
    capture = now.capture()
    writing = capture.writer()
    for number in range(1000):
        os.write(writing, b"%032d" % number * 128)
        assert len(capture.read() or b"") == 4096
        assert now.spool.stage.held <= limit + 3 * PART
    now = state(limit=limit)
    capture = now.capture()
    assert capture.total == 4_096_000
    assert now.disk.flush(WAIT)
    at, data = capture.since(capture.total - limit * 3 // 4, limit)
    assert at == capture.total - limit * 3 // 4
    assert data.startswith(b"%032d" % (at // 4096))
    assert staged(now) == []
    os.close(writing)


def test_limit_that_is_lowered_after_a_crash(hang: Callable[..., State], state: Callable[..., State]) -> None:
    """Of what is staged the last part is spooled, and its offsets are right, though the next server's limit is less."""
    capture = hang(limit=1 << 20).capture()
    writing = capture.writer()
    for number in range(200):
        os.write(writing, b"%032d" % number * 128)
        capture.read()
    now = state(limit=100_000)
    capture = now.capture()
    assert capture.total == 819_200
    assert now.disk.flush(WAIT)
    assert capture.tail(10) == (819_190, b"0000000199")
    assert capture.since(819_200 - 70_000, 1)[0] == 819_200 - 70_000
    os.close(writing)


def test_what_is_staged_of_a_run_that_nobody_knows(hang: Callable[..., State], state: Callable[..., State]) -> None:
    """What is left of a run that is over for good does not stay in memory, nor does what is removed."""
    capture = hang().capture()
    writing = capture.writer()
    os.write(writing, b"abc")
    capture.read()
    now = state()
    assert len(staged(now)) == 1
    now.spool.sweep({RUN})
    assert len(staged(now)) == 1
    now.spool.sweep(())
    assert staged(now) == []
    now = hang()
    capture = now.capture()
    os.write(writing, b"abc")
    capture.read()
    assert len(staged(now)) == 1
    capture.remove()
    assert staged(now) == []
    os.close(writing)


def test_spool_that_fails(state: Callable[..., State], tmp_path: Path) -> None:
    """What the disk does not take is not staged for ever."""
    now = state()
    capture = now.capture()
    writing = capture.writer()
    (tmp_path / "spool").rmdir()
    (tmp_path / "spool").touch()
    for _ in range(2):
        os.write(writing, b"abc")
        assert capture.read() == b"abc"
        assert now.disk.flush(WAIT)
        assert staged(now) == []
    assert capture.since(0, 10) == (0, b"abcabc")
    os.close(writing)


def test_capture_of_a_run_that_is_over(state: Callable[..., State], tmp_path: Path) -> None:
    """Of a run that ended under the server before, the output can still be had, and nothing is opened."""
    capture = state().capture()
    writing = capture.writer()
    os.write(writing, b"abc")
    capture.read()
    os.close(writing)
    capture = state().capture(live=False)
    assert capture.closed
    assert capture.read() is None
    assert capture.since(1, 10) == (1, b"bc")
    assert capture.tail(2) == (1, b"bc")
    capture.close()
    capture.remove()
    assert state().capture(live=False).total == 0
    assert list((tmp_path / "runs").iterdir()) == list((tmp_path / "spool").iterdir()) == []


def test_files_of_a_capture(state: Callable[..., State], tmp_path: Path) -> None:
    """Nobody but the server and the application gets at what is written, and nothing of it stays."""
    now = state()
    captures = [now.capture(stream) for stream in m.Stream]
    names = [path.name for path in sorted((tmp_path / "runs").iterdir())]
    assert names == [f"{RUN}.stderr", f"{RUN}.stdout"]
    assert all(path.stat().st_mode == stat.S_IFIFO | 0o600 for path in (tmp_path / "runs").iterdir())
    sweep(str(tmp_path), {RUN})
    assert len(list((tmp_path / "runs").iterdir())) == 2
    captures[0].remove()
    captures[0].remove()
    assert captures[0].closed
    (tmp_path / "runs" / RUN).touch()
    sweep(str(tmp_path), ())
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [RUN]


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_something_else_is_there(state: Callable[..., State], tmp_path: Path, what: str) -> None:
    """What is no FIFO is neither read nor followed."""
    path = tmp_path / "runs" / f"{RUN}.stdout"
    path.parent.mkdir()
    if what == "file":
        path.touch()
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    now = state()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(OSError, match=r"no FIFO|symbolic links"):
        now.capture()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_memory_of_a_capture(state: Callable[..., State]) -> None:
    """Thousands of runs are captured: what each costs beyond what it keeps is small."""
    now = state()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1000):
            run_id = f"{number:08x}{RUN[8:]}"
            now.captures.append(Capture(str(now.folder), run_id, m.Stream.STDOUT, keep=10, spool=now.spool))
        each = (tracemalloc.get_traced_memory()[0] - before) / 1000
    finally:
        tracemalloc.stop()
    assert each < 1024
