"""What a server had read and not yet on the disk when it was killed: the next one has it."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from cmapp.guest.stage import PART

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

from tests.shell.capture_bed import RUN, WAIT, State, staged


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
