"""Files that hold a part of a stream: their names, and what the disk's thread does to them.

A file is named RUN.STREAM.OFFSET, by the offset of its first byte. The invariant: each function does one thing to
files and knows of nothing else, so that any thread may do it.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cmapp.core import checks
from cmapp.core.messages import Stream
from cmapp.guest.runfile import who_else

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def by_stream(names: Iterable[str]) -> dict[tuple[str, Stream], list[int]]:
    """Return the offsets that stand in the names of files, by the stream; what is no such name is left out."""
    found: dict[tuple[str, Stream], list[int]] = {}
    for name in names:
        run_id, _, rest = name.partition(".")
        stream, _, start = rest.partition(".")
        try:
            key, at = (checks.uuid(run_id), Stream(stream)), checks.count(int(start))
        except ValueError:
            continue
        found.setdefault(key, []).append(at)
    return found


def size_of(path: str) -> int:
    """Return the size of a file, 0 if it cannot be looked at."""
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0


def append(paths: Sequence[str], path: str, offset: int, data: bytes) -> int:
    """Remove the files `paths`, write `data` to the one at `path` at `offset`, and return how long it is then."""
    unlink(paths)
    if not offset:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    descriptor = _open(path, os.O_WRONLY | os.O_CREAT)
    written = 0
    try:
        if not offset:
            os.ftruncate(descriptor, 0)
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], offset + written)
    except OSError:
        if not offset and not written:
            os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return offset + len(data)


def load(path: str, offset: int, most: int) -> bytes | OSError:
    """Return at most `most` bytes of a file from `offset` on, or why they cannot be read."""
    try:
        descriptor = _open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.pread(descriptor, most, offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error


def _open(path: str, flags: int) -> int:
    """Open a file that is the server's alone; raises OSError for any other, which is left as it is."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if other := who_else(os.fstat(descriptor)):
        os.close(descriptor)
        raise OSError(errno.EPERM, f"{path} {other}, and is left alone")
    return descriptor


def unlink(paths: Sequence[str]) -> None:
    """Remove the files that are there."""
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # as wanted
