"""Connections between hosts and the guest, as TCP gives them: in order, whole, and gone at any moment.

A wire has two ends. Bytes may be split on the way, held up in one direction or both, and cut in the middle of a
line; after a cut either end may hear of it or not (half-open), and who then says something finds out sooner or
later. The invariant: what arrives at an end is a beginning of what the other end said, nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from random import Random

    from timeline import Timeline

LATENCY = 0.001  # seconds from one end to the other
USER_TIMEOUT = 20.0  # seconds after which what nobody acknowledges breaks a connection


class End(Protocol):
    """Whoever holds one end of a wire."""

    def arrived(self, wire: Wire, data: bytes) -> None:
        """Take bytes."""

    def broken(self, wire: Wire, reason: str) -> None:
        """Take note that nothing more will come."""


class Way:
    """One direction of a wire: from one end to `to`."""

    __slots__ = ("arrives", "closing", "heard", "held", "to", "waiting")

    def __init__(self, to: End) -> None:
        self.to = to
        self.arrives = 0.0  # nothing overtakes what arrives then
        self.held = 0  # how many faults hold it up
        self.waiting: list[bytes] = []  # held up
        self.closing = ""  # what the end of the stream is told as, once all before it arrived
        self.heard = False  # the end of the stream


class Wire:
    """One connection; `ways` are to the server and to the manager."""

    __slots__ = ("_dice", "_timeline", "alive", "flying", "name", "reachable", "ways")

    def __init__(self, timeline: Timeline, dice: Random, name: str, manager: End, server: End) -> None:
        self.name = name
        self.alive = True  # whether bytes get anywhere
        self.reachable = True  # whether there is somebody at the other end's address who would deny a dead wire
        self.ways = {"server": Way(server), "manager": Way(manager)}
        self.flying = 0  # pieces under way
        self._timeline = timeline
        self._dice = dice

    def say(self, to: str, data: bytes) -> None:
        """Send bytes to the end `to`, in one piece or in two."""
        way = self.ways[to]
        other = self.ways["manager" if to == "server" else "server"]
        if not self.alive:
            if not other.heard:  # a reset comes back, or nothing at all until the transport gives up
                self._timeline.after(LATENCY if self.reachable else USER_TIMEOUT, self._break, other, "reset by peer")
            return
        if way.closing:
            return
        cut = self._dice.randrange(1, len(data)) if len(data) > 1 and self._dice.random() < 0.1 else 0  # noqa: PLR2004
        for piece in (data[:cut], data[cut:]) if cut else (data,):
            self._send(way, piece)

    def close(self, to: str) -> None:
        """Have the end `to` hear that the stream is over, after all that was said to it."""
        way = self.ways[to]
        if self.alive and not way.closing:
            way.closing = "closed by peer"
            self._send(way, b"")

    def hold(self, to: str) -> None:
        """Let nothing through to `to` for now."""
        self.ways[to].held += 1

    def release(self, to: str) -> None:
        """Let it through again: what waited arrives, in order."""
        way = self.ways[to]
        way.held -= 1
        if way.held == 0:
            waiting, way.waiting = way.waiting, []
            for data in waiting:
                self._arrive(way, data)

    def cut(self, *, tell: tuple[str, ...], keep: int = 0) -> None:
        """Lose what is under way, but for `keep` bytes of it in each direction; `tell` which ends notice at once."""
        if not self.alive:
            return
        self.alive = False
        for end, way in self.ways.items():
            rest = b"".join(way.waiting)[:keep]
            way.waiting = []
            if rest and not way.heard:
                way.to.arrived(self, rest)
            if end in tell:
                self._timeline.after(LATENCY, self._break, way, "reset by peer")

    def _send(self, way: Way, data: bytes) -> None:
        way.arrives = max(way.arrives, self._timeline.now + LATENCY * (1 + self._dice.random()))
        self.flying += 1
        self._timeline.at(way.arrives, self._arrive_later, way, data)

    def _arrive_later(self, way: Way, data: bytes) -> None:
        self.flying -= 1
        self._arrive(way, data)

    def _arrive(self, way: Way, data: bytes) -> None:
        if not self.alive or way.heard:
            return
        if way.held:
            way.waiting.append(data)
        elif data:
            way.to.arrived(self, data)
        else:
            self._break(way, way.closing)

    def _break(self, way: Way, reason: str) -> None:
        if not way.heard:
            way.heard = True
            way.to.broken(self, reason)
