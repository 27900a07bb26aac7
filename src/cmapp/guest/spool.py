"""What applications wrote, on disk: the last part of each stream, for who asks for it after a server has gone.

A stream is kept in segments, files that are named by the offset of their first byte, so the folder alone tells what
is there. The oldest segment goes when a stream has reached its limit. The invariant: a byte in the spool has the
offset that it has in the stream; what could not be written is a hole, never a shift.
"""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from cmapp.core import checks
from cmapp.core.messages import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cmapp.guest.disk import Disk

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
        self._found: dict[tuple[str, Stream], list[int]] = {}
        self._cause = ""
        self._resume = 0.0
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
            names = os.listdir(self.folder)
        except OSError as error:
            log.error("%s cannot be used: %s: output is kept in memory only", self.folder, error.strerror)
            names = []
        for name in names:
            parts = _parse(name)
            if parts is not None:
                self._found.setdefault(parts[:2], []).append(parts[2])

    def track(self, run_id: str, stream: Stream) -> Track:
        """Return the track of a stream, with what was found of it."""
        starts = sorted(self._found.pop((run_id, stream), []))
        return Track(self, run_id, stream, starts)

    def sweep(self, keep: Collection[str]) -> None:
        """Remove what was found of runs other than `keep`."""
        for run_id, stream in list(self._found):
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

    __slots__ = ("_at", "_flying", "_segments", "_spool", "_waiting", "run_id", "stream")

    def __init__(self, spool: Spool, run_id: str, stream: Stream, starts: Sequence[int]) -> None:
        """Take over the segments that begin at `starts`, in their order."""
        self.run_id = run_id
        self.stream = stream
        self._spool = spool
        self._segments = [(start, _size(self._path(start))) for start in starts]
        self._waiting = bytearray()
        self._at = 0  # the offset of what waits
        self._flying: Piece | None = None  # what the disk's thread is writing

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        if self._waiting:
            return self._at + len(self._waiting)
        if self._flying is not None:
            return self._flying[0] + len(self._flying[1])
        return sum(self._segments[-1]) if self._segments else 0

    def write(self, offset: int, data: bytes) -> None:
        """Spool `data`, which is at `offset` in the stream."""
        spool = self._spool
        if not spool.usable:
            return
        if spool.held + len(data) > HELD_LIMIT:
            self._drop("the disk is too slow for it")
            return
        if not self._waiting:
            self._at = offset
        self._waiting += data
        spool.held += len(data)
        extra = len(self._waiting) - spool.limit
        if extra > 0:  # it would be removed as soon as it was written
            self._cut(extra)
        if self._flying is None:
            self._store()

    def read(self, offset: int, most: int) -> Piece:
        """Return the first bytes at or after `offset`, at most `most`, and their offset; this waits for the disk."""
        for start, size in self._segments:
            if start + size > offset:
                at = max(start, offset)
                data = _load(self._path(start), at - start, min(most, start + size - at))
                if isinstance(data, bytes) and data:
                    return at, data
        return self._not_stored(offset, most)

    def fetch(self, offset: int, most: int, done: Callable[[int, bytes], None]) -> None:
        """Call `done` with what `read` would return, without waiting for the disk."""
        for start, size in self._segments:
            if start + size > offset:
                at = max(start, offset)
                work = partial(_load, self._path(start), at - start, min(most, start + size - at))
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
        if paths:
            self._spool.disk.do(partial(_unlink, paths))

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
        self._spool.failed(cause)

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
        work = partial(_append, paths, self._path(start), size, data)
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


def _parse(name: str) -> tuple[str, Stream, int] | None:
    """Return what the name of a segment tells, None if it is none."""
    run_id, _, rest = name.partition(".")
    stream, _, start = rest.partition(".")
    try:
        return checks.uuid(run_id), Stream(stream), checks.count(int(start))
    except ValueError:
        return None


def _size(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0


# ---- on the disk's thread ------------------------------------------------------------------------------------


def _append(paths: Sequence[str], path: str, offset: int, data: bytes) -> int:
    """Remove the segments `paths`, write `data` to one of them at `offset`, and return how long it is then."""
    _unlink(paths)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    if not offset:
        flags |= os.O_TRUNC
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    descriptor = os.open(path, flags, 0o600)
    written = 0
    try:
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], offset + written)
    except OSError:
        if not offset and not written:
            os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return offset + len(data)


def _load(path: str, offset: int, most: int) -> bytes | OSError:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, most, offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error


def _unlink(paths: Sequence[str]) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # as wanted
