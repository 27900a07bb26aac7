"""What applications wrote, on disk: the last part of each stream, for who asks for it after a server has gone.

A stream is kept in segments, files that are named by the offset of their first byte, so the folder alone tells what
is there. The oldest segment goes when a stream has reached its limit. What the disk does not have yet is staged
meanwhile, so that a crash does not take it along. The invariant: a byte in the spool has the offset that it has in the
stream; what could not be written is a hole, never a shift.
"""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from cmapp.guest.segment import append, by_stream, load, size_of, unlink
from cmapp.guest.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cmapp.core.messages import Stream
    from cmapp.guest.disk import Disk
    from cmapp.guest.stage import Staged

    Piece = tuple[int, bytes]

log = logging.getLogger(__name__)

FOLDER = "spool"
PARTS = 4  # segments that fill a stream's limit
SEGMENTS = 16  # at most, of a stream: a disk that is full now and then leaves short ones
HELD_LIMIT = 16 * 1024 * 1024  # bytes that wait for the disk, of all streams
PAUSE = 5.0  # seconds in which nothing is written after writing failed


class Spool:
    """The spooled streams of all runs under `folder`, the state folder; the last `limit` bytes of each, none if 0."""

    def __init__(self, disk: Disk, folder: str, limit: int) -> None:
        """Look for what a server before this one has left."""
        self.disk = disk
        self.limit = limit
        self.folder = os.path.join(folder, FOLDER)
        self.held = 0  # bytes that wait for the disk
        self._cause = ""
        self._resume = 0.0
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
            names = os.listdir(self.folder)
        except OSError as error:
            log.error("%s cannot be used: %s: output is kept in memory only", self.folder, error.strerror)
            names = []
        self._found = by_stream(names)
        self.stage = Stage(folder, wanted=limit > 0)

    def track(self, run_id: str, stream: Stream) -> Track:
        """Return the track of a stream, with what was found of it."""
        starts = sorted(self._found.pop((run_id, stream), []))
        return Track(self, run_id, stream, starts)

    def sweep(self, keep: Collection[str]) -> None:
        """Remove what was found of runs other than `keep`."""
        for run_id, stream in {*self._found, *self.stage.found}:
            if run_id not in keep:
                self.track(run_id, stream).remove()

    @property
    def usable(self) -> bool:
        """Whether writing is worth a try now."""
        return self.limit > 0 and (not self._cause or time.monotonic() >= self._resume)

    def failed(self, cause: str) -> None:
        """Take note that something was not written; it is told once until something can be written again."""
        if cause != self._cause:
            log.error("output is not spooled in %s for now, and kept in memory only: %s", self.folder, cause)
        self._cause = cause
        self._resume = time.monotonic() + PAUSE

    def succeeded(self) -> None:
        """Take note that something was written."""
        if self._cause:
            log.warning("output is spooled in %s again", self.folder)
            self._cause = ""


class Track:
    """One stream in the spool."""

    __slots__ = ("_at", "_flying", "_segments", "_spool", "_staged", "_waiting", "run_id", "stream")

    def __init__(self, spool: Spool, run_id: str, stream: Stream, starts: Sequence[int]) -> None:
        """Take over the segments that begin at `starts`, in their order, and what is staged behind them."""
        self.run_id = run_id
        self.stream = stream
        self._spool = spool
        self._segments = [(start, size_of(self._path(start))) for start in starts]
        self._waiting = bytearray()
        self._at = 0  # the offset of what waits
        self._flying: Piece | None = None  # what the disk's thread is writing
        self._staged: Staged | None = None
        if (run_id, stream) in spool.stage.found:
            staged = spool.stage.staged(run_id, stream)
            for start, data in staged.contents():
                at = max(start, self.end)
                self.write(at, data[at - start :])
            self._staged = staged  # not before, so that none goes that is yet to be written
            self._release()

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        if self._waiting:
            return self._at + len(self._waiting)
        if self._flying is not None:
            return self._flying[0] + len(self._flying[1])
        return sum(self._segments[-1]) if self._segments else 0

    def take(self, pipe: int, offset: int, most: int) -> bytes:
        """Return what can be read from `pipe`, at most `most` bytes, spooled: it is at `offset` in the stream.

        From when it leaves the pipe it is safe from a crash. Raises BlockingIOError if there is nothing.
        """
        if not self._spool.usable:
            return os.read(pipe, most)
        if self._staged is None:
            self._staged = self._spool.stage.staged(self.run_id, self.stream)
        data = self._staged.take(pipe, offset, most)
        self.write(offset, data)
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Spool `data`, which is at `offset` in the stream."""
        spool = self._spool
        if not data or not spool.usable:
            return
        if spool.held + len(data) > HELD_LIMIT:
            self._drop("the disk is too slow for it")
            return
        if self._at + len(self._waiting) != offset:  # what waits is one piece: a hole ends it
            self._cut(len(self._waiting))
        if not self._waiting:
            self._at = offset
        self._waiting += data
        spool.held += len(data)
        extra = len(self._waiting) - spool.limit
        if extra > 0:  # it would be removed as soon as it was written
            self._cut(extra)
            self._release()
        if self._flying is None:
            self._store()

    def read(self, offset: int, most: int) -> Piece:
        """Return the first bytes at or after `offset`, at most `most`, and their offset; this waits for the disk."""
        for start, size in self._segments:
            if start + size > offset:
                at = max(start, offset)
                data = load(self._path(start), at - start, min(most, start + size - at))
                if isinstance(data, bytes) and data:
                    return at, data
        return self._not_stored(offset, most)

    def fetch(self, offset: int, most: int, done: Callable[[int, bytes], None]) -> None:
        """Call `done` with what `read` would return, without waiting for the disk."""
        for start, size in self._segments:
            if start + size > offset:
                at = max(start, offset)
                work = partial(load, self._path(start), at - start, min(most, start + size - at))
                if self._spool.disk.do(work, partial(self._fetched, start + size, at, most, done)):
                    return
                break
        done(*self._not_stored(offset, most))

    def remove(self) -> None:
        """Remove the stream from the disk."""
        self._cut(len(self._waiting))
        paths = [self._path(start) for start, _ in self._segments]
        if self._flying is not None:
            paths.append(self._path(self._flying[0]))
        self._segments = []
        if self._staged is not None:
            self._staged.release()
            self._staged = None
        if paths:
            self._spool.disk.do(partial(unlink, paths))

    def _path(self, start: int) -> str:
        return f"{self._spool.folder}/{self.run_id}.{self.stream.value}.{start}"

    def _fetched(self, end: int, at: int, most: int, done: Callable[[int, bytes], None], data: bytes | OSError) -> None:
        if isinstance(data, bytes) and data:
            done(at, data)
        else:  # it was removed meanwhile, or cannot be read
            self.fetch(end, most, done)

    def _not_stored(self, offset: int, most: int) -> Piece:
        """Return what is on its way to the disk."""
        for start, data in (self._flying or (0, b""), (self._at, self._waiting)):
            if data and start + len(data) > offset:
                at = max(start, offset)
                return at, bytes(data[at - start : at - start + most])
        return max(offset, self.end), b""

    def _cut(self, size: int) -> None:
        del self._waiting[:size]
        self._at += size
        self._spool.held -= size

    def _drop(self, cause: str) -> None:
        self._cut(len(self._waiting))
        self._release()
        self._spool.failed(cause)

    def _release(self) -> None:
        """Let go of what is staged and no longer on its way to the disk."""
        if self._staged is None:
            return
        pieces = (self._flying or (0, b""), (self._at, self._waiting))
        if not self._staged.release(*((start, start + len(data)) for start, data in pieces if data)):
            self._staged = None

    def _store(self) -> None:
        """Hand what waits to the disk, as much as fits into a segment."""
        limit = self._spool.limit
        part = max(1, limit // PARTS)
        last = self._segments[-1] if self._segments else (0, part)
        goes_on = sum(last) == self._at and last[1] < part
        start, size = last if goes_on else (self._at, 0)
        data = bytes(self._waiting[: part - size])
        old = 0
        total = sum(size for _, size in self._segments) + len(data)
        while old < len(self._segments) - goes_on and (total > limit or len(self._segments) - old >= SEGMENTS):
            total -= self._segments[old][1]
            old += 1
        paths = [self._path(start) for start, _ in self._segments[:old]]
        del self._segments[:old]
        work = partial(append, paths, self._path(start), size, data)
        if not self._spool.disk.do(work, partial(self._stored, start), size=len(data)):
            self._drop("the disk is too slow for it")
            return
        self._flying = (self._at, data)
        self._cut(len(data))
        self._spool.held += len(data)

    def _stored(self, start: int, result: int | OSError) -> None:
        """Take note of what a segment holds now."""
        data = self._flying[1] if self._flying is not None else b""
        self._flying = None
        self._spool.held -= len(data)
        if isinstance(result, OSError):
            self._drop(result.strerror or str(result))
            return
        self._spool.succeeded()
        if self._segments and self._segments[-1][0] == start:
            self._segments.pop()
        self._segments.append((start, result))
        if self._waiting:
            self._store()
        self._release()
