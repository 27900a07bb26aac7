"""What an application writes: read as it comes, its last part kept, and handed on to who listens.

The application writes to a FIFO that it has open for reading too: when this server is gone there is still a reader,
so it gets no SIGPIPE and what it wrote waits for the next server. The application never waits for anybody but this
reader, and the reader waits for nobody. The invariant: an offset counts the bytes of the stream whoever read them,
and no more than twice `keep` bytes of a stream are held in memory.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from typing import TYPE_CHECKING

from cmapp.core.messages import OUTPUT_CHUNK, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from cmapp.guest.spool import Spool

log = logging.getLogger(__name__)

FOLDER = "runs"
PIPE_SIZE = 256 * 1024  # bytes that an application can write while no server is there; a flood is fastest so, too
_LAST_WORDS = 64  # reads at the end of a run: a whole pipe is eight, even one that was made larger is drained


class Capture:
    """One stream of one run, read from the non-blocking `descriptor`."""

    __slots__ = ("_folder", "_keep", "_kept", "_track", "closed", "descriptor", "total")

    def __init__(  # noqa: PLR0913 - where, which, and what with
        self, folder: str, run_id: str, stream: Stream, *, keep: int, spool: Spool, live: bool = True
    ) -> None:
        """Make the FIFO under the state folder, or open the one that is there; raises OSError.

        What the spool holds is taken up. Of a run that is over (not `live`) nothing else is: it is closed.
        """
        self._folder = folder
        self._keep = keep
        self._track = spool.track(run_id, stream)
        self.descriptor = _open_reader(self._path) if live else -1
        self.closed = not live
        self.total = self._track.end
        self._kept = self._recall()

    def writer(self) -> int:
        """Return a descriptor for the application, to be closed by the caller; raises OSError."""
        return os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def read(self) -> bytes | None:
        """Return what can be read now, at most a message's worth; b"" for nothing, None at the end."""
        if self.closed:
            return None
        try:
            data = self._track.take(self.descriptor, self.total, OUTPUT_CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            return None
        self.total += len(data)
        self._kept += data
        if len(self._kept) > 2 * self._keep:
            self._kept = self._kept[-self._keep :]
        return data

    def last_words(self) -> Iterator[bytes]:
        """Yield what is still in the pipe, bounded: an application that ended says no more."""
        for _ in range(_LAST_WORDS):
            data = self.read()
            if not data:
                return
            yield data

    def tail(self, limit: int) -> tuple[int, bytes]:
        """Return the last `limit` bytes that are kept, and the offset in the stream at which they begin."""
        data = (self._kept or self._recall())[-self._keep :][-limit:] if limit else b""
        return self.total - len(data), data

    def since(self, offset: int, most: int) -> tuple[int, bytes]:
        """Return at most `most` bytes from `offset` on, and where they begin: later, if what is before is gone.

        What is no longer in memory is read from the disk here and now: see `fetch`.
        """
        return self._kept_since(offset, most) or self._or_kept(offset, most, *self._track.read(offset, most))

    def fetch(self, offset: int, most: int, done: Callable[[int, bytes], None]) -> None:
        """Call `done` with what `since` would return, without waiting for the disk."""
        kept = self._kept_since(offset, most)
        if kept is not None:
            done(*kept)
        else:
            self._track.fetch(offset, most, lambda at, data: done(*self._or_kept(offset, most, at, data)))

    def rebase(self, offset: int) -> None:
        """Count on from `offset`, if more of the stream is known to have been read than the spool tells."""
        if offset > self.total:
            self.total = offset
            self._kept = b""

    def close(self) -> None:
        """Close the pipe, which stays for the next server; what was kept stays too."""
        if not self.closed:
            os.close(self.descriptor)
            self.closed = True

    def retire(self) -> None:
        """Close the pipe, and remove it: the run is over. What was spooled stays, nothing does in memory."""
        self.close()
        self._kept = b""
        _remove(self._path)

    def remove(self) -> None:
        """Close the pipe, and remove it and what was spooled."""
        self.retire()
        self._track.remove()

    @property
    def _path(self) -> str:
        return os.path.join(self._folder, FOLDER, f"{self._track.run_id}.{self._track.stream.value}")

    def _recall(self) -> bytes:
        """Return the last part of what is in the spool."""
        kept = b""
        at = max(0, self.total - self._keep)
        while at < self.total:
            start, data = self._track.read(at, self.total - at)
            if not data:
                return b""
            kept = kept + data if start == at else data
            at = start + len(data)
        return kept

    def _kept_since(self, offset: int, most: int) -> tuple[int, bytes] | None:
        """Return what memory holds from `offset` on, None if that is not all."""
        first = self.total - len(self._kept)
        if offset < first:
            return None
        return min(offset, self.total), self._kept[offset - first : offset - first + most]

    def _or_kept(self, offset: int, most: int, at: int, data: bytes) -> tuple[int, bytes]:
        """Return what the spool gave, or what memory holds if that goes on sooner."""
        first = max(offset, self.total - len(self._kept))
        if data and at < first:
            return at, data
        return self._kept_since(first, most) or (self.total, b"")


def sweep(folder: str, keep: Collection[str]) -> None:
    """Remove the FIFOs under the state folder of runs other than `keep`; raises OSError."""
    folder = os.path.join(folder, FOLDER)
    for name in os.listdir(folder):
        run_id, _, stream = name.partition(".")
        if run_id not in keep and stream in {word.value for word in Stream}:
            _remove(os.path.join(folder, name))


def _open_reader(path: str) -> int:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        os.mkfifo(path, 0o600)
        descriptor = os.open(path, flags)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileExistsError(errno.EEXIST, "it is there, but is no FIFO", path)
    if os.geteuid() == 0:  # others have so much pipe in all, and the more each took the sooner it would be used up
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            pass  # root in a container may be one of the others: then it is as large as it is
    return descriptor


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # as wanted
    except OSError as error:
        log.warning("%s cannot be removed: %s", path, error.strerror)
