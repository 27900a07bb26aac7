"""What the application writes, on its way to the package log or to our own standard output and error.

Responsible for bounded memory and for never waiting for a reader. The invariant: every byte of a stream is
passed on in order, or is in a gap that the log tells the size of.
"""

from __future__ import annotations

import os
import select
import time

from cmapp.core.messages import Stream
from cmapp.host.journal import takes
from cmapp.host.values import OutputTo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cmapp.core.messages import Output
    from cmapp.host.journal import Journal

PIECE = 2048  # bytes of one line that go into one line of the log
BURST, WINDOW = 10_000, 10.0  # lines of the log in so many seconds; gaps are told as often
BUFFER = 256 * 1024  # bytes of a stream that wait for a reader of ours
LAST_WAIT = 1.0  # seconds that a reader is given at the end for what still waits
DESCRIPTORS = {Stream.STDOUT: 1, Stream.STDERR: 2}


class Sink:
    """Takes the output and passes nothing on: `--output none`, and what the others have in common.

    `position` counts the bytes of each stream that were taken, or are known to be missing: a server that we return
    to goes on from there.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.position = dict.fromkeys(Stream, 0)
        self._missing = dict.fromkeys(Stream, 0)
        self._told_missing = -WINDOW

    def take(self, output: Output) -> None:
        """Pass on what is new in a message, after telling of the gap before it."""
        stream = output.stream
        known = self.position[stream] - output.offset
        if known >= len(output.data) > 0:
            return
        data = output.data[max(0, known) :]
        gap = max(-known, output.dropped if known <= 0 else 0)
        if gap > 0:
            self._before_gap(stream)
            self._missing[stream] += gap
            if time.monotonic() - self._told_missing >= WINDOW:
                self._tell_missing()
        self.position[stream] = output.offset + len(output.data)
        self._pass_on(stream, data)

    def waiting(self) -> list[int]:
        """Return the descriptors that have to be written to when they can be."""
        return []

    def flush(self) -> None:
        """Write what waits, as far as it goes without waiting."""

    def end(self) -> None:
        """Pass on what is left of the last line, and tell what is missing: no more will come."""
        for stream in Stream:
            self._before_gap(stream)
        self._tell_missing()

    def drain(self) -> None:
        """Give the readers their last chance, and tell what they did not take."""

    def _tell_missing(self) -> None:
        """Tell the first gap at once, and what follows now and then: a flood has thousands."""
        self._told_missing = time.monotonic()
        for stream, count in self._missing.items():
            if count:
                self._journal.warning(f"{count} bytes of its {stream.value} are missing: the server dropped them")
        self._missing = dict.fromkeys(Stream, 0)

    def _before_gap(self, stream: Stream) -> None:
        """Write what came before the gap."""

    def _pass_on(self, stream: Stream, data: bytes) -> None:
        """Write what came."""


class ToLog(Sink):
    """Writes each line to the package log, marked with its stream; a longer one than PIECE in several.

    An application can write far faster than lines are logged. It gets BURST lines in each WINDOW; what is beyond
    is left out, or the manager would fall behind with its polls, and the log would fill the disk.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self._rest = dict.fromkeys(Stream, b"")
        self._left_out = dict.fromkeys(Stream, 0)
        self._lines = 0
        self._window = 0.0

    def end(self) -> None:
        """Write lines that had no end, and tell what is not in the log."""
        super().end()
        for stream in Stream:
            self._resume(stream)

    def _before_gap(self, stream: Stream) -> None:
        if self._rest[stream]:
            self._write(stream, self._rest[stream])
        self._rest[stream] = b""

    def _pass_on(self, stream: Stream, data: bytes) -> None:
        if self._is_too_much():
            self._left_out[stream] += len(self._rest[stream]) + len(data)
            self._rest[stream] = b""
            return
        self._resume(stream)
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        for line in lines:
            self._write(stream, line)
        whole = max(0, (len(rest) - 1) // PIECE * PIECE)
        if whole:
            self._write(stream, rest[:whole])
        self._rest[stream] = rest[whole:]

    def _write(self, stream: Stream, line: bytes) -> None:
        for start in range(0, len(line) or 1, PIECE):
            self._lines += 1
            self._journal.quote(stream.value, line[start : start + PIECE].decode(errors="backslashreplace"))

    def _is_too_much(self) -> bool:
        now = time.monotonic()
        if now - self._window >= WINDOW:
            self._window, self._lines = now, 0
        return self._lines >= BURST

    def _resume(self, stream: Stream) -> None:
        if self._left_out[stream]:
            self._journal.warning(
                f"{self._left_out[stream]} bytes of its {stream.value} were left out here: it wrote more than"
                f" {BURST} lines in {WINDOW:g} s"
            )
        self._left_out[stream] = 0


class ToStdout(Sink):
    """Writes stdout to our standard output and stderr to our standard error, bytes as they are."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self._outlets = {stream: _Outlet(descriptor) for stream, descriptor in DESCRIPTORS.items()}

    def waiting(self) -> list[int]:
        """Return those of the two that have a reader that is behind."""
        return [outlet.descriptor for outlet in self._outlets.values() if outlet.buffer]

    def flush(self) -> None:
        """Write what the readers take now."""
        for stream, outlet in self._outlets.items():
            if outlet.buffer:
                self._flush(stream, outlet, 0)

    def drain(self) -> None:
        """Wait for the readers, LAST_WAIT for both together, and tell what is lost."""
        deadline = time.monotonic() + LAST_WAIT
        for stream, outlet in self._outlets.items():
            while outlet.buffer and (left := deadline - time.monotonic()) > 0:
                self._flush(stream, outlet, left)
            lost = outlet.lost + len(outlet.buffer)
            if lost:
                self._journal.warning(f"{lost} bytes of its {stream.value} were dropped: nobody read them in time")

    def _pass_on(self, stream: Stream, data: bytes) -> None:
        outlet = self._outlets[stream]
        if not outlet.closed:
            outlet.put(data)
            self._flush(stream, outlet, 0)

    def _flush(self, stream: Stream, outlet: _Outlet, patience: float) -> None:
        problem = outlet.flush(patience)
        if problem:
            self._journal.warning(f"its {stream.value} is discarded from here, as ours cannot be written: {problem}")


class _Outlet:
    """One descriptor, and what waits for its reader."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.buffer = bytearray()
        self.lost = 0
        self.closed = False

    def put(self, data: bytes) -> None:
        """Have the data wait, or be lost where there is no room."""
        taken = data[: BUFFER - len(self.buffer)]
        self.buffer += taken
        self.lost += len(data) - len(taken)

    def flush(self, patience: float) -> str:
        """Write while it goes, waiting for the first write only; return what closed it, if anything."""
        try:
            while self.buffer and takes(self.descriptor, patience):
                del self.buffer[: os.write(self.descriptor, self.buffer[: select.PIPE_BUF])]
                patience = 0
        except BlockingIOError:
            pass
        except OSError as error:
            self.closed = True
            self.buffer.clear()
            return error.strerror or str(error)
        return ""


def sink_for(where: OutputTo, journal: Journal) -> Sink:
    """Return what takes the output for `--output where`."""
    return {OutputTo.NONE: Sink, OutputTo.LOG: ToLog, OutputTo.STDOUT: ToStdout}[where](journal)
