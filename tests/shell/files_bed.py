"""The part of a server that keeps the files of runs, for tests: started, left as if killed, and started again."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from cmapp.core.ledger import FORMAT, decode, encode_line
from cmapp.guest.disk import Disk
from cmapp.guest.receipts import Receipts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

LIMIT = 60  # seconds: a disk may be slow
RUN = "01234567-89ab-cdef-0123-456789abcdef"
HEADER: dict[str, Any] = {"format": FORMAT}
BEGUN = encode_line(HEADER) + encode_line({"launch": "web"})
READY = {"ready": True}
ENDED = {"exited": 3}
ACKNOWLEDGED = {"acknowledged": True}
WHOLE: list[dict[str, Any]] = [HEADER, {"launch": "web"}, READY, ENDED]


class Server:
    """The part of a server that keeps files, in a state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = asyncio.new_event_loop()
        self.disk = Disk(self.loop)
        self.receipts = Receipts(self.disk, str(folder))
        self.loaded = self.receipts.load()

    @property
    def found(self) -> dict[str, list[dict[str, Any]]]:
        """Return the entries of each run that were found at the start."""
        return dict(self.loaded)

    def begin(self, run_id: str = RUN, content: bytes = BEGUN) -> OSError | None:
        """Begin a run and return what was said of its file."""
        told: list[OSError | None] = []
        self.receipts.begin(run_id, content, told.append)
        self.until(lambda: told)
        return told[0]

    def finish(self, run_id: str = RUN) -> None:
        """Have a run that was begun become ready, and end."""
        self.receipts.add(run_id, encode_line(READY))
        self.receipts.end(run_id, encode_line(ENDED))
        assert self.disk.flush(LIMIT)

    def until(self, so: Callable[[], Any]) -> None:
        """Run the loop until something is so."""

        async def wait() -> None:
            deadline = time.monotonic() + LIMIT
            while not so():
                assert time.monotonic() < deadline, "it never happened"
                await asyncio.sleep(0.005)

        self.loop.run_until_complete(wait())

    def close(self) -> None:
        """Leave as if killed."""
        self.disk.close()
        self.loop.close()


def entries(path: Path) -> list[dict[str, Any]]:
    """Return what a file holds; it must be whole."""
    content, torn = decode(path.read_bytes())
    assert not torn
    return content


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the errors that were logged."""
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]
