"""What is captured of a stream: every byte at its offset, whoever reads it, and whether or not somebody does."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.guest.output import PIPE_SIZE, Capture, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

from tests.shell.capture_bed import RUN, WAIT, State, staged


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
