"""What the captures of a server share, for tests: started, left as it is, and taken up by the next."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cmapp.core import messages as m
from cmapp.guest.disk import Disk
from cmapp.guest.output import Capture
from cmapp.guest.spool import Spool

RUN = "01234567-89ab-cdef-0123-456789abcdef"
WAIT = 60  # seconds: a disk may be slow


class State:
    """What the captures of a server share: a disk, a spool and a state folder; a new one is a new server."""

    def __init__(self, folder: Path, limit: int = 1 << 20) -> None:
        self.folder = folder
        self.disk = Disk(asyncio.new_event_loop())
        self.spool = Spool(self.disk, str(folder), limit)
        self.captures: list[Capture] = []

    def capture(self, stream: m.Stream = m.Stream.STDOUT, *, keep: int = 10, live: bool = True) -> Capture:
        """Return the capture of a stream."""
        capture = Capture(str(self.folder), RUN, stream, keep=keep, spool=self.spool, live=live)
        self.captures.append(capture)
        return capture

    def close(self) -> None:
        """Leave as if killed, but with everything on the disk."""
        assert self.disk.flush(60)
        self.disk.close()
        self.disk.loop.close()
        for capture in self.captures:
            capture.close()


def staged(now: State) -> list[Path]:
    """Return the files in memory of what is not on the disk yet."""
    return list(Path(now.spool.stage.folder).glob(f"{now.spool.stage.prefix}*"))
