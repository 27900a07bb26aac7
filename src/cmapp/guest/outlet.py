"""The output of one run on its way to one manager, from the offsets that the manager named.

It is sent as fast as the manager takes it; what is no longer kept when its turn comes is told as dropped. The
invariant: of each stream every byte is sent once and in order, or is counted as dropped.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cmapp.core import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmapp.guest.output import Capture

OUTPUT_LIMIT = 128 * 1024  # bytes that may wait while output is still added: the rest waits in the spool
LAST_OUTPUT = 256 * 1024  # the same when the run has ended, and there is no later


class Outlet:
    """Takes from captures, which `find` finds, and says it; `room` tells whether fewer bytes wait than it is given."""

    __slots__ = ("_fetching", "_find", "_offsets", "_passing", "_room", "_say")

    def __init__(
        self,
        find: Callable[[m.Stream], Capture | None],
        say: Callable[[m.Output], None],
        room: Callable[[int], bool],
    ) -> None:
        self._find = find
        self._say = say
        self._room = room
        self._offsets: dict[m.Stream, int] = {}
        self._fetching = self._passing = False

    def want(self, launch: m.Launch) -> None:
        """Take note whether output is wanted, and from where."""
        if launch.output:
            self._offsets = {m.Stream.STDOUT: launch.stdout_from, m.Stream.STDERR: launch.stderr_from}

    def begin(self) -> None:
        """Begin: the run is there."""
        for stream, capture in self._captures():
            capture.rebase(self._offsets[stream])
        self.pass_on()

    def pass_on(self) -> None:
        """Send what the run has written and the manager has not got yet, as far as there is room for it."""
        if self._passing:
            return
        self._passing = True
        for stream, capture in self._captures():
            while self._wants(stream, capture, OUTPUT_LIMIT) and not self._fetching:
                self._fetching = True
                capture.fetch(self._offsets[stream], m.OUTPUT_CHUNK, partial(self._fetched, stream))
        self._passing = False

    def pass_last(self, limit: int) -> None:
        """Send what there is room for, though it is the disk that has it; tell the rest as dropped, within `limit`."""
        for stream, capture in self._captures():
            while self._wants(stream, capture, LAST_OUTPUT):
                self._send(stream, *capture.since(self._offsets[stream], m.OUTPUT_CHUNK))
            if self._wants(stream, capture, limit):
                self._send(stream, capture.total, b"")

    def _fetched(self, stream: m.Stream, begin: int, data: bytes) -> None:
        """Send what came from memory, at once, or from the disk, later."""
        self._fetching = False
        if begin >= self._offsets[stream]:
            self._send(stream, begin, data)
        self.pass_on()

    def _captures(self) -> list[tuple[m.Stream, Capture]]:
        found = [(stream, self._find(stream)) for stream in self._offsets]
        return [(stream, capture) for stream, capture in found if capture is not None]

    def _wants(self, stream: m.Stream, capture: Capture, limit: int) -> bool:
        return self._room(limit) and self._offsets[stream] < capture.total

    def _send(self, stream: m.Stream, begin: int, data: bytes) -> None:
        dropped, self._offsets[stream] = begin - self._offsets[stream], begin + len(data)
        self._say(m.Output(stream, begin, data, dropped=dropped))
