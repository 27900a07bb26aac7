"""Files that hold a part of a stream: their names, and what the disk's thread does to them.

A file is named RUN.STREAM.OFFSET, by the offset of its first byte. The invariant: each function does one thing to
files and knows of nothing else, so that any thread may do it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cmapp.core import checks
from cmapp.core.messages import Stream

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


def load(path: str, offset: int, most: int) -> bytes | OSError:
    """Return at most `most` bytes of a file from `offset` on, or why they cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, most, offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error


def unlink(paths: Sequence[str]) -> None:
    """Remove the files that are there."""
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # as wanted
