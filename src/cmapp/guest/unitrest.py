"""What a unit leaves behind when systemd is through with it, as with KillMode=process: ended, and waited for.

The invariant: "empty" is told once, when nobody was seen to be left; before anybody in the unit's control group is
signalled, systemd is asked whether the group is still that of this run.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from cmapp.guest.ending import LATER, SOON

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmapp.guest.cgroup import CgroupTree
    from cmapp.guest.containment import Tree

    Rest = Callable[[Callable[[CgroupTree | None, bool], None]], None]


class Remains:
    """What is left of one run: in the unit's control group, and in `beside`, the tree of the commands beside it.

    `ask(done)` has `done` told the control group, None if nobody of this run is in it, and whether that is sure.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, beside: Tree, ask: Rest, empty: Callable[[], None]) -> None:
        self._loop = loop
        self._beside = beside
        self._ask = ask
        self._empty = empty
        self._survivors: list[int] = []
        self._number = 0  # what is to be sent to whoever is left
        self._watching = self._asking = False
        self._after = SOON

    def reach(self, number: int) -> None:
        """Signal all that are left; SIGKILL again and again until nobody is."""
        if self._number != signal.SIGKILL:
            self._number = number
        if self._survivors:
            self._on_end()

    def watch(self) -> None:
        """Wait until nobody is left; not at once, but in the next turn of the loop, after the end was told."""
        if not self._watching:
            self._watching = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        if not self._asking:
            self._asking = True
            self._ask(self._on_rest)

    def _on_rest(self, group: CgroupTree | None, sure: bool) -> None:  # noqa: FBT001 - told by position
        self._asking = False
        try:
            if not sure:
                raise BlockingIOError
            self._survivors = self._signal(group) if group is not None else []
            self._survivors += self._beside.survivors()
        except OSError:  # blind, or one is on its way out: not to see anybody does not mean that nobody is there
            self._let_go()
            self._loop.call_later(self._after, self._look)
            self._after = min(2 * self._after, LATER)
            return
        if not self._survivors:
            self._empty()
        for pidfd in self._survivors:
            self._loop.add_reader(pidfd, self._on_end)

    def _signal(self, group: CgroupTree) -> list[int]:
        """Signal who is left in the unit's control group, and return descriptors of some of them."""
        if self._number == signal.SIGKILL:
            group.kill()
        elif self._number:
            group.signal(self._number)
            group.signal(signal.SIGCONT)  # a stopped process would never see it
            self._number = 0
        return group.survivors()

    def _on_end(self) -> None:
        self._let_go()
        self._look()

    def _let_go(self) -> None:
        for pidfd in self._survivors:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        self._survivors = []
