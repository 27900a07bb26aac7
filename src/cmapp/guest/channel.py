"""A link on the event loop: proven, read, written, and closed so that the peer can read why.

The invariant: `proven` is called before anything is handed on, `closed` exactly once, and nothing after it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cmapp.errors import CmappError, LinkError, TrustError
from cmapp.net.tls import Role, peer_identity, require_role

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmapp.net.link import Link
    from cmapp.net.tls import Identity

log = logging.getLogger(__name__)

LINGER = 3.0  # seconds that a peer is given to read what was said last


class Channel:
    """Drives `link` and tells what comes of it; `closed` gets the reason, or "" where there is none.

    `drained` is called when there is room for more, after there was none.
    """

    __slots__ = ("_closed", "_drained", "_heard", "_lingers", "_link", "_loop", "_proven", "_writes")

    def __init__(  # noqa: PLR0913 - one for each thing that it tells
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        *,
        proven: Callable[[Identity], None],
        heard: Callable[[bytes], None],
        drained: Callable[[], None],
        closed: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._link = link
        self._proven: Callable[[Identity], None] | None = proven
        self._heard = heard
        self._drained = drained
        self._closed: Callable[[str], None] | None = closed
        self._lingers: asyncio.Handle | None = None
        self._writes = False
        loop.add_reader(link.fileno(), self._on_ready)

    @property
    def peer(self) -> str:
        """What the peer is called in the log."""
        return self._link.peer

    @property
    def waiting(self) -> int:
        """How many bytes wait to be sent."""
        return self._link.waiting

    @property
    def ending(self) -> bool:
        """Whether it is being closed, or is."""
        return self._closed is None or self._lingers is not None

    def send(self, data: bytes) -> None:
        """Send `data`, if the channel is not being closed; a peer that does not read is let go."""
        if self.ending:
            return
        try:
            self._link.write(data)
        except CmappError as error:
            log.warning("%s", error)
            self._lingers = self._loop.call_soon(self.close, "")  # not now: the caller is in the midst of something
        else:
            self._watch_writing()

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
        if self._lingers is not None:
            self._lingers.cancel()
        self._loop.remove_reader(self._link.fileno())
        self._loop.remove_writer(self._link.fileno())
        self._link.close()
        closed(reason)

    def _on_ready(self) -> None:
        try:
            if self._proven is not None and not self._prove(self._proven):
                return
            data = self._link.read()
        except TrustError as error:
            log.warning("turned away: %s", error)
            self.end()
        except LinkError as error:
            self.close(str(error))
        else:
            if data is None:
                self.close(f"{self.peer} hung up")
            elif data:
                self._heard(data)
            self._watch_writing()

    def _prove(self, proven: Callable[[Identity], None]) -> bool:
        if not self._link.handshake():
            self._watch_writing()
            return False
        identity = peer_identity(self._link.tls)
        require_role(identity, Role.HOST)
        self._link.peer = f"manager {identity.name} at {self._link.peer}"
        self._proven = None
        proven(identity)
        return self._lingers is None

    def _watch_writing(self) -> None:
        if self._closed is None or self._lingers is not None or self._link.wants_write == self._writes:
            return
        self._writes = self._link.wants_write
        if self._writes:
            self._loop.add_writer(self._link.fileno(), self._on_writable)
        else:
            self._loop.remove_writer(self._link.fileno())

    def _on_writable(self) -> None:
        if self._proven is not None:
            self._on_ready()
            return
        try:
            self._link.flush()
        except CmappError as error:
            self.close(str(error))
        else:
            if self._lingers is not None:
                self._hang_up()
                return
            self._watch_writing()
            if not self._link.waiting:
                self._drained()

    def _hang_up(self) -> None:
        """Say our end once all that was said before it is on its way: the end of a run may be among that."""
        if self._link.waiting:
            self._loop.add_writer(self._link.fileno(), self._on_writable)
        else:
            self._loop.remove_writer(self._link.fileno())
            self._link.hang_up()

    def _on_rest(self) -> None:
        if self._link.drain():
            self.close("")
