"""The one order of everything that happens: a heap of what is due, and whatever time it is.

Nothing here is random and nothing looks at a real clock. The invariant: what is due at the same time happens in
the order in which it was arranged, so the same schedule is the same story, step by step.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Ticket:
    """Something that is due at `at`; `act` is None once it has happened, or is cancelled."""

    __slots__ = ("act", "at", "number", "values")

    def __init__(self, at: float, number: int, act: Callable[..., None], values: tuple[Any, ...]) -> None:
        self.at = at
        self.number = number
        self.act: Callable[..., None] | None = act
        self.values = values

    def cancel(self) -> None:
        """Have it not happen."""
        self.act = None


class Timeline:
    """What is due, and `now`, in seconds since the world began; `steps` counts what has happened."""

    __slots__ = ("_due", "_number", "now", "steps")

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._due: list[tuple[float, int, Ticket]] = []
        self._number = 0

    def after(self, delay: float, act: Callable[..., None], *values: Any) -> Ticket:
        """Have `act` happen `delay` seconds from now."""
        return self.at(self.now + delay, act, *values)

    def at(self, time: float, act: Callable[..., None], *values: Any) -> Ticket:
        """Have `act` happen at `time`, or at once if that is over."""
        self._number += 1
        ticket = Ticket(max(time, self.now), self._number, act, values)
        heappush(self._due, (ticket.at, ticket.number, ticket))
        return ticket

    def step(self, until: float) -> bool:
        """Let the next thing happen that is due by `until`; return False, with `now` at `until`, if there is none."""
        while self._due and self._due[0][0] <= until:
            at, _, ticket = heappop(self._due)
            act, ticket.act = ticket.act, None
            if act is not None:
                self.now = at
                self.steps += 1
                act(*ticket.values)
                return True
        self.now = max(self.now, until)
        return False
