"""The link of a proven manager on the event loop: read, written, and closed so that the peer can read why.

What is read is handed on at once, unless reading is held back: by our user, because more waits for the peer than it
should, or because it took long, and so is for the turns of the loop that are left over. The invariant: nothing is
handed on while reading is held back, `closed` is called exactly once, and nothing after it.
"""

from __future__ import annotations

import array
import fcntl
import logging
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from cmapp.errors import CmappError, RemoteProtocolError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmapp.guest.turns import Turns
    from cmapp.net.link import Link

log = logging.getLogger(__name__)

LINGER = 3.0  # seconds that a peer is given to read what was said last
ENOUGH = 320 * 1024  # bytes that wait for a peer from which on it is not heard: more than output alone can be
LONG = 0.002  # seconds of reading at once after which the next time is for the turns
TAKEN_LEAST, TAKEN_IN = 16 * 1024, 15.0  # bytes of what waits that a peer has to take, in how many seconds


class Channel:
    """Drives `link` and tells what comes of it; `closed` gets the reason, or "" where there is none.

    `drained` is called when there is room for more, after there was none.
    """

    __slots__ = (
        "_closed",
        "_drained",
        "_gathered",
        "_gathers",
        "_heard",
        "_held",
        "_lingers",
        "_link",
        "_loop",
        "_mark",
        "_reads",
        "_rests",
        "_said",
        "_turns",
        "_writes",
    )

    def __init__(  # noqa: PLR0913 - one for each thing that it tells
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        turns: Turns,
        *,
        heard: Callable[[bytes], None],
        drained: Callable[[], None],
        closed: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._link = link
        self._turns = turns
        self._heard = heard
        self._drained = drained
        self._closed: Callable[[str], None] | None = closed
        self._lingers: asyncio.Handle | None = None
        self._reads = self._writes = self._held = self._gathers = False
        self._gathered = bytearray()
        self._rests = True
        self._said = 0
        self._mark: tuple[float, int] | None = None
        turns.ask(self._on_turn)  # something may have come with the end of the handshake

    @property
    def peer(self) -> str:
        """What the peer is called in the log."""
        return self._link.peer

    @property
    def waiting(self) -> int:
        """How many bytes wait to be sent."""
        return self._link.waiting + len(self._gathered)

    @property
    def full(self) -> bool:
        """Whether so much waits for the peer that it should not ask for more."""
        return self.waiting >= ENOUGH

    @property
    def ending(self) -> bool:
        """Whether it is being closed, or is."""
        return self._closed is None or self._lingers is not None

    def send(self, data: bytes) -> None:
        """Send `data`, if the channel is not being closed; a peer that does not read is let go."""
        if self.ending:
            return
        self._gathered += data
        if not self._gathers:
            self._write()

    def gather(self, on: bool) -> None:  # noqa: FBT001 - as of a switch
        """Have what is sent from here on leave in one piece, or have it leave."""
        self._gathers = on
        if not on and self._gathered and self._closed is not None:
            self._write()

    def _write(self) -> None:
        data, self._gathered = bytes(self._gathered), bytearray()
        self._said += len(data)
        try:
            self._link.write(data)
        except CmappError as error:
            log.warning("%s", error)
            self._lingers = self._loop.call_soon(self.close, "")  # not now: the caller is in the midst of something
        else:
            self._watch()

    def hold(self, on: bool) -> None:  # noqa: FBT001 - as of a switch
        """Read nothing from here on, or go on."""
        self._held = on
        self._watch()

    def stalls(self, now: float) -> bool:
        """Tell whether the peer does not take what waits for it; to be asked about once a second."""
        if not self._link.waiting:
            self._mark = None
            return False
        taken = self._said - self._link.waiting - self._unconfirmed()
        if self._mark is None or taken - self._mark[1] >= TAKEN_LEAST:
            self._mark = (now, taken)
        return now - self._mark[0] > TAKEN_IN

    def excuse(self) -> None:
        """Judge nobody by the time that has passed."""
        self._mark = None

    def end(self) -> None:
        """Hang up, but read on for a moment: closing at once would reset what the peer has not read yet."""
        if self.ending:
            return
        self._lingers = self._loop.call_later(LINGER, self.close, "")
        self._loop.add_reader(self._link.fileno(), self._on_rest)
        self._hang_up()

    def close(self, reason: str) -> None:
        """Close at once."""
        closed, self._closed = self._closed, None
        if closed is None:
            return
        if self._gathered:  # the peer may have said bye in the same breath
            with suppress(CmappError):
                self._link.write(bytes(self._gathered))
        if self._lingers is not None:
            self._lingers.cancel()
        self._loop.remove_reader(self._link.fileno())
        self._loop.remove_writer(self._link.fileno())
        self._link.close()
        closed(reason)

    def _unconfirmed(self) -> int:
        """How many bytes the kernel holds that the peer's kernel has not confirmed; 0 where it does not tell."""
        found = array.array("i", [0])
        try:
            fcntl.ioctl(self._link.fileno(), termios.TIOCOUTQ, found)
        except OSError:  # vsock, before Linux 6.6
            return 0
        return found[0]

    def _on_turn(self) -> None:
        self._rests = False
        if not self.ending and not self._held:
            self._on_ready()

    def _on_ready(self) -> None:
        began = time.monotonic()
        try:
            data = self._link.read()
        except RemoteProtocolError as error:
            log.warning("%s", error)
            self.close("")
            return
        except CmappError as error:
            self.close(str(error))
            return
        if data is None:
            self.close(f"{self.peer} hung up")
            return
        if data:
            self._heard(data)
        if time.monotonic() - began >= LONG and not self._rests:
            self._rests = True
            self._turns.ask(self._on_turn)
        self._watch()

    def _watch(self) -> None:
        """Have the loop tell what we want to know of."""
        if self.ending:
            return
        reads, writes = not (self._held or self._rests or self.full), self._link.wants_write
        if reads != self._reads:
            self._reads = reads
            if reads:
                self._loop.add_reader(self._link.fileno(), self._on_ready)
            else:
                self._loop.remove_reader(self._link.fileno())
        if writes != self._writes:
            self._writes = writes
            if writes:
                self._loop.add_writer(self._link.fileno(), self._on_writable)
            else:
                self._loop.remove_writer(self._link.fileno())
                self._loop.call_soon(self._on_room)

    def _on_room(self) -> None:
        if not self.ending and not self._link.waiting:
            self._drained()

    def _on_writable(self) -> None:
        try:
            self._link.flush()
        except CmappError as error:
            self.close(str(error))
            return
        if self._lingers is not None:
            self._hang_up()
            return
        self._watch()

    def _hang_up(self) -> None:
        """Say our end once all that was said before it is on its way: the end of a run may be among that."""
        self.gather(False)
        if self._closed is None:
            return
        if self._link.waiting:
            self._loop.add_writer(self._link.fileno(), self._on_writable)
        else:
            self._loop.remove_writer(self._link.fileno())
            self._link.hang_up()

    def _on_rest(self) -> None:
        if self._link.drain():
            self.close("")
