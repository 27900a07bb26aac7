"""The guest's disk, as far as the files of runs are concerned: what is written, and what is safe.

Work is done one piece after another, later, as by the server's disk thread; what is not done when the server
dies is never done. Space that a file has reserved can be written when the disk is full. The invariant: after a
loss of power a file holds at least what was synced and at most what was written, perhaps torn in the middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from timeline import Ticket, Timeline

QUICK, SLOW = 0.0005, 2.0  # seconds that a piece of work takes
ROOM = 4096  # bytes reserved when a file is begun


class File:
    """One file: what was written, and how much of it would outlive a loss of power."""

    __slots__ = ("content", "safe")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.safe = 0


class Disk:
    """The files by run id; `full`, `broken` and `slow` count the faults that make it so."""

    def __init__(self, timeline: Timeline, dice: Random) -> None:
        self.files: dict[str, File] = {}
        self.gone: dict[str, File] = {}  # removed, which a loss of power undoes until the next sync
        self.full = self.broken = self.slow = 0
        self._timeline = timeline
        self._dice = dice
        self._free = 0.0  # when the work before is done
        self._queue: list[Ticket] = []

    def do(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Do the work after what was asked for before, and report it."""
        takes = SLOW if self.slow else QUICK
        self._free = max(self._free, self._timeline.now) + takes * (0.5 + self._dice.random())
        self._queue = [ticket for ticket in self._queue if ticket.act is not None and ticket.at >= self._timeline.now]
        self._queue.append(self._timeline.at(self._free, self._work, work, done))

    def begin(self, name: str, content: bytes) -> None:
        """Make a file and reserve its room; raises OSError."""
        self._check(grows=True)
        self.files[name] = File(content)

    def add(self, name: str, line: bytes, *, sync: bool) -> None:
        """Write a line to the end of the file; raises OSError."""
        file = self.files.get(name)
        self._check(grows=file is None or len(file.content) + len(line) > ROOM)
        if file is None:
            file = self.files[name] = File(b"")
        file.content += line
        if sync:
            file.safe = len(file.content)
            self.gone.clear()

    def remove(self, name: str) -> None:
        """Remove the file."""
        self._check(grows=False)
        if name in self.files:
            self.gone[name] = self.files.pop(name)

    def flush(self) -> None:
        """Do at once what waits and what it gives rise to, unless the disk is too slow for that."""
        while not self.slow and self._queue:
            ticket = self._queue.pop(0)
            act, ticket.act = ticket.act, None
            if act is not None:
                act(*ticket.values)

    def abandon(self) -> None:
        """Do none of the work that waits: the server that asked for it is dead."""
        for ticket in self._queue:
            ticket.cancel()
        self._queue.clear()
        self._free = self._timeline.now

    def lose_power(self) -> None:
        """Lose what is not safe, some of it or all of it."""
        self.abandon()
        for name, file in self.gone.items():
            if self._dice.random() < 0.5:  # noqa: PLR2004
                self.files.setdefault(name, file)
        self.gone.clear()
        for name, file in list(self.files.items()):
            kept = self._dice.choice((file.safe, len(file.content), self._dice.randint(file.safe, len(file.content))))
            file.content = file.content[:kept]
            file.safe = kept
            if not kept:
                del self.files[name]

    def _check(self, *, grows: bool) -> None:
        if self.broken:
            raise OSError(5, "Input/output error")
        if self.full and grows:
            raise OSError(28, "No space left on device")

    def _work(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        try:
            work()
        except OSError as error:
            done(error)
        else:
            done(None)
