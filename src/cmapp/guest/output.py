"""What an application writes: read as it comes, its last part kept, and handed on to who listens.

The application never waits for anybody but this reader, and the reader waits for nobody: what a listener
cannot take is dropped and counted. The invariant: no more than twice `keep` bytes of a stream are held.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cmapp.core.messages import OUTPUT_CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator

_LAST_WORDS = 64  # reads at the end of a run: a whole pipe is two, even one that was made larger is drained


class Capture:
    """One stream of one run, read from the non-blocking `descriptor`."""

    __slots__ = ("_keep", "_kept", "closed", "descriptor", "total")

    def __init__(self, descriptor: int, keep: int) -> None:
        self.descriptor = descriptor
        self.closed = False
        self.total = 0
        self._keep = keep
        self._kept = b""

    def read(self) -> bytes | None:
        """Return what can be read now, at most a message's worth; b"" for nothing, None at the end."""
        if self.closed:
            return None
        try:
            data = os.read(self.descriptor, OUTPUT_CHUNK)
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
        data = self._kept[-self._keep :][-limit:] if limit else b""
        return self.total - len(data), data

    def close(self) -> None:
        """Close the pipe; what was kept stays."""
        if not self.closed:
            os.close(self.descriptor)
            self.closed = True
