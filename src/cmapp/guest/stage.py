"""What was read from applications and is not on disk yet, in memory that outlives the server.

A server that is killed takes along what it holds. So what an application wrote is moved out of its pipe into a file
on a tmpfs, and read there: by splice(2), which is one step to a SIGKILL, so a byte is in the pipe or in the file. It
cannot be moved to the disk so, because a pipe is locked meanwhile: who writes to it, and our loop, would wait for the
disk. The files are named like the spool's segments. The invariant: what `take` has moved is there, at its offset in
the stream, until it is released, whatever becomes of the server; where it cannot be moved it is read as ever.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from typing import TYPE_CHECKING

from cmapp.guest.segment import by_stream, size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cmapp.core.messages import Stream

    Key = tuple[str, Stream]
    Span = tuple[int, int]

log = logging.getLogger(__name__)

# Folders on a tmpfs, the first that can be used: where only root can make one, and what every Linux has.
FOLDERS = ("/run/cmappserver", "/dev/shm/cmappserver.{user}")  # noqa: S108 - only one that is ours is used
PART = 256 * 1024  # bytes of a file before the next is begun
STAGE_LIMIT = 32 * 1024 * 1024  # bytes of all files: twice what may wait for the disk, because files go as a whole
PAUSE = 5.0  # seconds in which nothing is moved after moving failed


class Stage:
    """What is staged of all streams of the state folder `state`; nothing is where there is no folder in memory."""

    def __init__(self, state: str, *, wanted: bool) -> None:
        """Look for what a server before this one has left; stage nothing unless it is `wanted`."""
        self.folder = ""
        self.prefix = ""  # of the names of files: servers of other state folders use the same folder
        self.held = 0  # bytes in files
        self._found: dict[Key, list[int]] = {}
        self._cause = ""
        self._resume = 0.0
        if not wanted:
            return
        try:
            found = os.stat(state)
            self.prefix = f"{found.st_dev:x}.{found.st_ino:x}."
            self.folder = _folder()
            names = os.listdir(self.folder)
        except OSError as error:
            self.failed(error.strerror or str(error))
        else:
            self._found = by_stream(name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix))

    @property
    def found(self) -> Iterable[Key]:
        """The streams of which something was found that nobody has asked for yet."""
        return self._found.keys()

    def staged(self, run_id: str, stream: Stream) -> Staged:
        """Return what there is of a stream, with what was found of it."""
        return Staged(self, run_id, stream, sorted(self._found.pop((run_id, stream), [])))

    @property
    def usable(self) -> bool:
        """Whether moving is worth a try now."""
        if not self.folder or self.held >= STAGE_LIMIT:
            return False
        return not self._cause or time.monotonic() >= self._resume

    def failed(self, cause: str) -> None:
        """Take note that something could not be moved; it is told once until something can be moved again."""
        if cause != self._cause:
            where = self.folder or " or ".join(FOLDERS)
            log.warning(
                "output that is not in the spool yet would be lost if this server crashed: %s: %s", where, cause
            )
        self._cause = cause
        self._resume = time.monotonic() + PAUSE
        if self.folder:
            try:
                self.folder = _folder()  # somebody may have removed it
            except OSError:
                pass  # it is tried again as it is

    def succeeded(self) -> None:
        """Take note that something was moved."""
        if self._cause:
            log.warning("output is safe from a crash of this server again")
            self._cause = ""


class Staged:
    """What of one stream is staged: files that are named by the offset of their first byte."""

    __slots__ = ("_parts", "_run_id", "_stage", "_stream")

    def __init__(self, stage: Stage, run_id: str, stream: Stream, starts: Sequence[int]) -> None:
        """Take over the files that begin at `starts`, in their order."""
        self._stage = stage
        self._run_id = run_id
        self._stream = stream
        self._parts = [(start, size_of(self._path(start))) for start in starts]
        stage.held += sum(size for _, size in self._parts)

    def take(self, pipe: int, offset: int, most: int) -> bytes:
        """Return what can be read from `pipe`, at most `most` bytes, which are at `offset` in the stream.

        They are staged if that can be. Raises BlockingIOError if there are none.
        """
        if self._stage.usable:
            try:
                data = self._move(pipe, offset, most)
            except BlockingIOError:
                raise
            except OSError as error:
                self._stage.failed(error.strerror or str(error))
            else:
                self._stage.succeeded()
                return data
        return os.read(pipe, most)

    def release(self, *needed: Span) -> bool:
        """Remove the files that have no byte of the spans, from an offset to another; return whether any is left."""
        parts = self._parts
        self._parts = [
            (start, size) for start, size in parts if any(start < end and begin < start + size for begin, end in needed)
        ]
        for start, size in parts:
            if (start, size) not in self._parts:
                self._stage.held -= size
                _remove(self._path(start))
        return bool(self._parts)

    def contents(self) -> Iterator[tuple[int, bytes]]:
        """Yield what there is, each piece with its offset."""
        for start, size in self._parts:
            try:
                descriptor = os.open(self._path(start), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    yield start, os.pread(descriptor, size, 0)
                finally:
                    os.close(descriptor)
            except OSError as error:
                log.error("%s cannot be read: %s", self._path(start), error.strerror)

    def _move(self, pipe: int, offset: int, most: int) -> bytes:
        """Do it with a descriptor for the moment only: thousands of streams may wait for a disk that hangs."""
        start, size = self._parts[-1] if self._parts else (offset, 0)
        goes_on = 0 < size < PART and start + size == offset
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        if not goes_on:
            start, size = offset, 0
            flags |= os.O_CREAT | os.O_EXCL
        moved = 0
        descriptor = os.open(self._path(start), flags, 0o600)
        try:
            moved = os.splice(pipe, descriptor, most, offset_dst=size, flags=os.SPLICE_F_NONBLOCK)
            return os.pread(descriptor, moved, size)
        finally:
            os.close(descriptor)
            if goes_on:
                self._parts.pop()
            if size + moved:
                self._parts.append((start, size + moved))
                self._stage.held += moved
            else:
                _remove(self._path(start))

    def _path(self, start: int) -> str:
        stage = self._stage
        return f"{stage.folder}/{stage.prefix}{self._run_id}.{self._stream.value}.{start}"


def _folder() -> str:
    """Return a folder in memory that nobody else gets into, made if it is not there; raises OSError."""
    cause = OSError(errno.ENODEV, "there is no tmpfs")
    for name in FOLDERS:
        path = name.format(user=os.geteuid())
        try:
            if _is_in_memory(os.path.dirname(path)):
                _make(path)
                return path
        except OSError as error:
            cause = error
    raise cause


def _make(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # by a server before us, or by somebody else
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "it is there, but is not a folder that only we get into", path)


def _is_in_memory(path: str) -> bool:
    """Tell whether a folder is on a tmpfs, so that no disk is waited for; raises OSError."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", errors="replace") as file:
        for line in file:
            mount, _, source = line.partition(" - ")
            if mount.split(maxsplit=3)[2] == number:
                return source.split()[0] == "tmpfs"
    return False


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # somebody else did, or has taken away the whole folder
