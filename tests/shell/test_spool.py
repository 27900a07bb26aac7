"""The spool on real disks: what comes back has the offset that it had, whatever was rotated, lost or left behind."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from cmapp.core.messages import Stream
from cmapp.guest import spool as module
from cmapp.guest.disk import Disk
from cmapp.guest.spool import HELD_LIMIT, SEGMENTS, Spool, Track
from tests.shell.small_disk import SmallDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WAIT = 60  # seconds: a disk may be slow
RUN = "01234567-89ab-cdef-0123-456789abcdef"
LIMIT = 1000
TEXT = bytes(random.Random(1).randbytes(20_000))  # noqa: S311 - what is where is to be told apart


@pytest.fixture
def disk() -> Iterator[Disk]:
    """Return a disk on a loop of its own."""
    disk = Disk(asyncio.new_event_loop())
    yield disk
    disk.flush(WAIT)
    disk.close()
    disk.loop.close()


@pytest.fixture
def spool(disk: Disk, tmp_path: Path) -> Callable[..., Spool]:
    """Return a function that makes a spool of what is there."""
    return lambda folder=tmp_path, limit=LIMIT: Spool(disk, str(folder), limit)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    """Return a disk of 256 KiB."""
    disk = SmallDisk(tmp_path, 256 * 1024)
    yield disk
    disk.close()


def stored(folder: Path) -> list[tuple[int, int]]:
    """Return the offset and size of every segment in a state folder."""
    found = (folder / "spool").iterdir()
    return sorted((int(path.name.rpartition(".")[2]), path.stat().st_size) for path in found)


def all_of(track: Track, most: int = 7000) -> list[tuple[int, bytes]]:
    """Return all that a track has, read both ways, which must be the same."""
    pieces, told, at = list[tuple[int, bytes]](), list[tuple[int, bytes]](), 0
    while True:
        told.clear()
        track.fetch(at, most, lambda start, data: told.append((start, data)))
        assert track._spool.disk.flush(WAIT)
        assert told == [track.read(at, most)]
        start, data = told[0]
        assert start >= at
        if not data:
            assert start == max(at, track.end)
            return pieces
        pieces.append((start, data))
        at = start + len(data)


@pytest.mark.parametrize("size", [1, 7, 249, 250, 251, 999, 1000, 1001, 3333])
def test_rotation(spool: Callable[..., Spool], disk: Disk, tmp_path: Path, size: int) -> None:
    """Whatever the pieces, the last part is there, at its place, and no more than the limit."""
    track = spool().track(RUN, Stream.STDOUT)
    for at in range(0, 5000, size):
        track.write(at, TEXT[at : at + size])
        assert disk.flush(WAIT)
        end = at + size
        assert track.end == end
        pieces = all_of(track)
        assert b"".join(data for _, data in pieces) == TEXT[pieces[0][0] : end]
        assert end - pieces[0][0] >= min(end, LIMIT * 3 // 4)
        assert sum(length for _, length in stored(tmp_path)) <= LIMIT
    assert all(start >= 0 and length <= LIMIT // 4 for start, length in stored(tmp_path))


def test_next_server_goes_on(spool: Callable[..., Spool], disk: Disk, tmp_path: Path) -> None:
    """The next server finds the end of each stream, all that there is of it, and writes on behind it."""
    first = spool()
    for stream, factor in ((Stream.STDOUT, 1), (Stream.STDERR, 2)):
        first.track(RUN, stream).write(0, TEXT[: 300 * factor])
    assert disk.flush(WAIT)
    second = spool()
    out, err = (second.track(RUN, stream) for stream in Stream)
    assert (out.end, err.end) == (300, 600)
    assert all_of(out, 10_000)[0] == (0, TEXT[:250])
    out.write(out.end, TEXT[300:400])
    assert disk.flush(WAIT)
    assert b"".join(data for _, data in all_of(spool().track(RUN, Stream.STDOUT))) == TEXT[:400]
    out.remove()
    assert disk.flush(WAIT)
    assert {path.name.split(".")[1] for path in (tmp_path / "spool").iterdir()} == {"stderr"}
    assert out.read(0, 10)[1] == b""


def test_what_was_never_written_is_empty(spool: Callable[..., Spool]) -> None:
    """A stream without a byte begins at 0."""
    track = spool().track(RUN, Stream.STDOUT)
    assert track.end == 0
    assert track.read(0, 10) == (0, b"")
    assert track.read(5, 10) == (5, b"")
    track.remove()


def test_hole(spool: Callable[..., Spool], disk: Disk) -> None:
    """What was never given to the spool is a hole, before and after a restart."""
    track = spool().track(RUN, Stream.STDOUT)
    track.write(0, TEXT[:10])
    assert disk.flush(WAIT)
    track.write(100, TEXT[100:110])
    assert disk.flush(WAIT)
    for found in (track, spool().track(RUN, Stream.STDOUT)):
        assert all_of(found) == [(0, TEXT[:10]), (100, TEXT[100:110])]
        assert found.read(5, 3) == (5, TEXT[5:8])
        assert found.read(10, 3) == (100, TEXT[100:103])


def test_hole_while_the_disk_hangs(spool: Callable[..., Spool], disk: Disk) -> None:
    """What is read while another stream has failed is a hole, also for a stream of which something waits."""
    release = threading.Event()
    disk.do(partial(release.wait, WAIT))
    track = spool().track(RUN, Stream.STDOUT)
    track.write(0, TEXT[:10])
    track.write(10, TEXT[10:20])
    track._spool.failed("for the test")
    track.write(20, TEXT[20:30])
    track._spool._resume = 0.0
    track.write(30, TEXT[30:40])
    assert track.end == 40
    release.set()
    assert disk.flush(WAIT)
    assert track._spool.held == 0
    assert all_of(track) == [(0, TEXT[:10]), (30, TEXT[30:40])]


def test_on_its_way(spool: Callable[..., Spool], disk: Disk) -> None:
    """What is not on the disk yet is there all the same, and while the disk hangs it is bounded."""
    release = threading.Event()
    disk.do(partial(release.wait, WAIT))
    track = spool().track(RUN, Stream.STDOUT)
    track.write(0, TEXT[:10])
    track.write(10, TEXT[10:20])
    assert track.end == 20
    assert track.read(0, 100) == (0, TEXT[:10])
    assert track.read(4, 3) == (4, TEXT[4:7])
    assert track.read(10, 100) == (10, TEXT[10:20])
    for at in range(20, 20_000, 333):
        track.write(at, TEXT[at : at + 333])
    assert track._spool.held <= LIMIT + 10
    release.set()
    assert disk.flush(WAIT)
    assert track._spool.held == 0
    assert all_of(track)[-1][1] == TEXT[-len(all_of(track)[-1][1]) :]


def test_many_streams_of_a_disk_that_hangs(
    spool: Callable[..., Spool], disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """All streams together are bounded too, which is told once; later they are spooled again, with a hole."""
    release = threading.Event()
    disk.do(partial(release.wait, 60))
    shared = spool(limit=1 << 20)
    tracks = [shared.track(f"{number:08x}{RUN[8:]}", Stream.STDOUT) for number in range(40)]
    for track in tracks:
        track.write(0, bytes(1 << 20))
    assert shared.held <= HELD_LIMIT
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "too slow" in caplog.text
    release.set()
    assert disk.flush(60)
    assert shared.held == 0
    shared._resume = 0.0
    tracks[-1].write(1 << 20, b"again")
    assert disk.flush(WAIT)
    assert tracks[-1].read(0, 100) == (1 << 20, b"again")


def test_full_disk(spool: Callable[..., Spool], disk: Disk, small: SmallDisk, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk costs the spool what is written meanwhile, which is told once; what comes later is at its place."""
    caplog.set_level(logging.WARNING)
    shared = spool(small.path)
    track = shared.track(RUN, Stream.STDOUT)
    track.write(0, TEXT[:100])
    assert disk.flush(WAIT)
    small.fill()
    for at in range(100, 5000, 300):  # the first of these may still find room in the page that is there
        shared._resume = 0.0
        track.write(at, TEXT[at : at + 300])
        assert disk.flush(WAIT)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "No space left on device" in caplog.text
    assert shared.held == 0
    small.free()
    track.write(5200, TEXT[5200:5300])
    assert disk.flush(WAIT)
    assert track.end < 5000, "right after a failure it is not tried again"
    shared._resume = 0.0
    track.write(5300, TEXT[5300:5400])
    assert disk.flush(WAIT)
    assert caplog.records[1].message.endswith("again")
    for found in (track, spool(small.path).track(RUN, Stream.STDOUT)):
        pieces = all_of(found)
        assert all(data == TEXT[start : start + len(data)] for start, data in pieces)
        assert pieces[-1] == (5300, TEXT[5300:5400])


def test_disk_that_is_full_now_and_then(spool: Callable[..., Spool], disk: Disk, tmp_path: Path) -> None:
    """Holes do not make ever more segments."""
    track = spool().track(RUN, Stream.STDOUT)
    for at in range(0, 5000, 10):
        track.write(at, TEXT[at : at + 5])
        assert disk.flush(WAIT)
    assert len(stored(tmp_path)) == SEGMENTS
    assert all_of(track)[-1] == (4990, TEXT[4990:4995])


def test_read_only_disk(
    spool: Callable[..., Spool], disk: Disk, small: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """On a read-only disk there is no spool, which is told, and nothing else is amiss."""
    small.protect()
    track = spool(small.path).track(RUN, Stream.STDOUT)
    track.write(0, b"x")
    track.write(1, b"y")
    assert disk.flush(WAIT)
    track.remove()
    assert "Read-only file system" in caplog.text
    assert track.read(0, 10) == (0, b"")
    small.unprotect()
    track._spool._resume = 0.0
    track.write(2, b"z")
    assert disk.flush(WAIT)
    assert track.read(0, 10) == (2, b"z")


def test_no_spool_is_wanted(spool: Callable[..., Spool], disk: Disk, tmp_path: Path) -> None:
    """With a limit of 0 nothing is written."""
    track = spool(limit=0).track(RUN, Stream.STDOUT)
    track.write(0, b"x")
    assert disk.flush(WAIT)
    assert stored(tmp_path) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_tiny_limit(spool: Callable[..., Spool], disk: Disk, tmp_path: Path, limit: int) -> None:
    """However small the limit, it is kept."""
    track = spool(limit=limit).track(RUN, Stream.STDOUT)
    for at in range(0, 50, 10):
        track.write(at, TEXT[at : at + 10])
        assert disk.flush(WAIT)
        assert sum(size for _, size in stored(tmp_path)) <= limit
        assert all(data == TEXT[start : start + len(data)] for start, data in all_of(track))


def test_removed_while_it_is_written(spool: Callable[..., Spool], disk: Disk, tmp_path: Path) -> None:
    """A stream that is removed leaves nothing, whatever of it is on its way to the disk."""
    shared = spool()
    track = shared.track(RUN, Stream.STDOUT)
    release = threading.Event()
    for at in range(0, 1500, 100):
        track.write(at, TEXT[at : at + 100])
    assert disk.flush(WAIT)
    disk.do(partial(release.wait, WAIT))
    for at in range(1500, 3000, 100):
        track.write(at, TEXT[at : at + 100])
    track.remove()
    release.set()
    assert disk.flush(WAIT)
    assert stored(tmp_path) == []
    assert shared.held == 0


def test_somebody_removed_it(spool: Callable[..., Spool], disk: Disk, tmp_path: Path) -> None:
    """Segments that somebody removed are holes."""
    track = spool().track(RUN, Stream.STDOUT)
    for at in range(0, 1000, 100):
        track.write(at, TEXT[at : at + 100])
        assert disk.flush(WAIT)
    for path in (tmp_path / "spool").glob("*.stdout.250"):
        path.unlink()
    assert [start for start, _ in all_of(track)] == [0, 500, 750]


def test_sweep(spool: Callable[..., Spool], disk: Disk, tmp_path: Path) -> None:
    """What is left of runs that nobody knows is removed; what is no segment is left alone."""
    other = RUN.replace("0", "f")
    for run_id in (RUN, other):
        spool().track(run_id, Stream.STDERR).write(0, TEXT[:600])
    assert disk.flush(WAIT)
    names = ["README", f"{RUN}.stdout", f"{RUN}.stdout.", f"{RUN}.stdout.-1", f"{RUN}.other.1", f"{RUN}.stdout.x"]
    for name in [*names, f"{RUN}.stdout.{'9' * 100}"]:
        (tmp_path / "spool" / name).write_text("x")
    shared = spool()
    shared.sweep({other})
    assert disk.flush(WAIT)
    left = {path.name for path in (tmp_path / "spool").iterdir()}
    assert left == {*names, f"{RUN}.stdout.{'9' * 100}", *(f"{other}.stderr.{at}" for at in (0, 250, 500))}
    assert shared.track(other, Stream.STDERR).end == 600


def test_segment_that_goes_while_it_is_fetched(spool: Callable[..., Spool], disk: Disk) -> None:
    """Who asks for what is rotated away before the disk gets to it is told what comes after."""
    track = spool().track(RUN, Stream.STDOUT)
    for at in range(0, 1000, 250):
        track.write(at, TEXT[at : at + 250])
        assert disk.flush(WAIT)
    track.write(1000, TEXT[1000:1250])
    track._segments.insert(0, (0, 250))  # as it was when the question was asked
    told: list[tuple[int, bytes]] = []
    track.fetch(10, 100, lambda at, data: told.append((at, data)))
    assert disk.flush(WAIT)
    assert told == [(250, TEXT[250:350])]
    assert module.PARTS == 4
