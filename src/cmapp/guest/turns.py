"""Work that can wait, a little of it in each turn of the event loop.

What strangers and those who ask too much want done goes through here, so that everybody else is served in between.
The invariant: what is asked for is done in order, and in one turn of the loop for no longer than `budget` seconds
and one piece of work.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Turns:
    """A queue of work on the loop."""

    __slots__ = ("_budget", "_loop", "_queue", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, budget: float) -> None:
        self._loop = loop
        self._budget = budget
        self._queue: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def ask(self, work: Callable[[], None]) -> None:
        """Have `work` called in a later turn of the loop."""
        self._queue.append(work)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        until = time.monotonic() + self._budget
        try:
            while self._queue:
                self._queue.popleft()()
                if time.monotonic() >= until:
                    break
        finally:
            if self._queue:
                self._schedule()
