"""A run is brought to its end: asked, signalled, killed, and waited for until nobody of its tree lives.

The invariant: "tree empty" is told once, and only when the tree was seen, and was seen to be empty.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

from cmapp.core.lifecycle import Event
from cmapp.core.outcome import signal_name

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmapp.core.messages import Launch
    from cmapp.guest.containment import Tree
    from cmapp.guest.health import Care
    from cmapp.guest.process import Process

log = logging.getLogger(__name__)

SOON, LATER = 0.005, 0.2  # seconds until the tree is looked at again, when it could not be seen


class Ending:
    """What is done to end one run; `tell` gets STOP_COMMAND_ENDED and TREE_EMPTY."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        launch: Launch,
        tree: Tree,
        care: Care,
        tell: Callable[[Event], None],
    ) -> None:
        self._loop = loop
        self._launch = launch
        self._tree = tree
        self._care = care
        self._tell = tell
        self._survivors: list[int] = []
        self._after = SOON
        self._watching = False

    def ask(self, process: Process | None) -> None:
        """Run the stop command; its end, or that there is none, is told."""
        rules = self._launch.stop
        first = f"by {' '.join(rules.command)}, then " if rules.command else ""
        name = signal_name(rules.signal)
        log.info("%s: stopping %swith SIG%s, SIGKILL after %g s", self._name, first, name, rules.timeout)
        self._care.stop(process.main.pid if process is not None else 0, self._on_stop_command)

    def signal_tree(self, process: Process | None) -> None:
        """Send the stop signal to the main process's group; to all, if that is a daemon, which leads none."""
        if process is None or not process.leads_its_group:
            self.signal_rest()
        else:
            process.signal_group(self._launch.stop.signal)
            process.signal_group(signal.SIGCONT)  # a stopped process would never see the stop signal

    def signal_rest(self) -> None:
        """Send the stop signal to all that are left."""
        self._tree.signal(self._launch.stop.signal)
        self._tree.signal(signal.SIGCONT)

    def kill(self, process: Process | None) -> None:
        """Kill all that are left, and what has not entered the tree yet."""
        self._care.rest()
        self._tree.kill()
        if process is not None:
            process.signal_main(signal.SIGKILL)

    def watch(self) -> None:
        """Wait until nobody is left; not at once, but in the next turn of the loop, after the end was told."""
        self._care.rest()
        if not self._watching:
            self._watching = True
            self._loop.call_soon(self._look)

    def complain(self) -> None:
        """Tell that those that are left do not end."""
        log.error("%s: processes survive SIGKILL, its name stays taken until they are gone", self._name)

    def _on_stop_command(self, trouble: str) -> None:
        if trouble:
            log.warning("%s: %s", self._name, trouble)
        self._tell(Event.STOP_COMMAND_ENDED)

    def _look(self) -> None:
        try:
            self._survivors = self._tree.survivors()
        except OSError:  # blind, or one is on its way out: not to see anybody does not mean that nobody is there
            self._loop.call_later(self._after, self._look)
            self._after = min(2 * self._after, LATER)
            return
        if not self._survivors:
            self._tell(Event.TREE_EMPTY)
        for pidfd in self._survivors:
            self._loop.add_reader(pidfd, self._on_end)

    def _on_end(self) -> None:
        for pidfd in self._survivors:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        self._survivors = []
        self._look()

    @property
    def _name(self) -> str:
        return f"{self._launch.name} (run {self._launch.run_id})"
