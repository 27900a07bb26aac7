"""A process of ours, as the world sees it: it may be stopped, go on, and be killed, at any step.

What happens to one that stands still waits for it, in order, and its clock is looked at last, as an event loop
does. The invariant: nothing happens to a process that is dead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from timeline import Ticket, Timeline


class Actor:
    """A process; `tick` is called when its deadline is due, or when it goes on after that."""

    def __init__(self, timeline: Timeline) -> None:
        self.alive = True
        self._paused = 0
        self._since = 0.0  # when it was stopped
        self._inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._ticket: Ticket | None = None
        self._timeline = timeline

    @property
    def paused(self) -> bool:
        """Whether it stands still."""
        return self._paused > 0

    def event(self, act: Callable[..., None], *values: Any) -> None:
        """Have it do something now, or when it goes on."""
        if self.alive and self._paused:
            self._inbox.append((act, values))
        elif self.alive:
            act(*values)
            self.rearm()

    def soon(self, delay: float, act: Callable[..., None], *values: Any) -> None:
        """Have it do something after `delay`."""
        self._timeline.after(delay, self.event, act, *values)

    def pause(self) -> None:
        """Stop it."""
        if not self._paused:
            self._since = self._timeline.now
        self._paused += 1

    def go_on(self) -> None:
        """Let it go on, unless something else stops it too."""
        self._paused -= 1
        if self._paused or not self.alive:
            return
        self.stood_still(self._timeline.now - self._since)
        inbox, self._inbox = self._inbox, []
        for act, values in inbox:
            self.event(act, *values)
        self.rearm()

    def die(self) -> None:
        """Kill it."""
        self.alive = False
        self._inbox.clear()
        self._disarm()

    def stood_still(self, seconds: float) -> None:
        """Take note of that."""

    def deadline(self) -> float | None:
        """Return when it wants to look at the clock, in the timeline's seconds."""
        raise NotImplementedError

    def tick(self) -> None:
        """Look at the clock."""
        raise NotImplementedError

    def rearm(self) -> None:
        """Look at the clock at the deadline."""
        at = self.deadline() if self.alive else None
        if self._ticket is not None and self._ticket.act is not None and self._ticket.at == at:
            return
        self._disarm()
        if at is not None:
            self._ticket = self._timeline.at(at, self._due)

    def _due(self) -> None:
        self._ticket = None
        if not self._paused:
            self.event(self.tick)

    def _disarm(self) -> None:
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None
