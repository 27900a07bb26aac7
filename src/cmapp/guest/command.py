"""A command that is run beside an application, as its user and in its tree: a check, or what stops it in its way.

The invariant: `done` is called once, when the command has ended and was reaped, and never from within the start.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from cmapp.guest.preparation import plan_of
from cmapp.guest.process import Process

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from typing import Any

    from cmapp.core.messages import Launch
    from cmapp.core.outcome import Outcome
    from cmapp.guest.containment import Tree
    from cmapp.guest.surroundings import Surroundings

_KEPT = 4096  # bytes of output, the last
_AT_ONCE = 65536


class Command:
    """A command that runs; `done` gets its outcome, None if it could not be executed, and the last line it wrote."""

    __slots__ = ("_done", "_leaders", "_loop", "_output", "_process", "_said")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        leaders: set[int],
        plan: Mapping[str, Any],
        join: int | None,
        done: Callable[[Outcome | None, str], None],
    ) -> None:
        """Start it by `plan`, like the application; `join` stays the caller's. Raises RunError."""
        self._loop = loop
        self._leaders = leaders
        self._done = done
        self._said = b""
        self._output, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(writing, True)
            self._process = Process(plan, writing, writing, join)
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(writing)
        leaders.add(self._process.pid)
        self._process.go()
        loop.add_reader(self._output, self._on_output)
        loop.add_reader(self._process.pidfd, self._on_end)

    def kill(self) -> None:
        """Kill it and its group; its end is told as any."""
        self._process.signal_group(signal.SIGKILL)

    def _on_output(self) -> None:
        if not self._read():
            self._loop.remove_reader(self._output)

    def _read(self) -> bool:
        """Read what there is, bounded; return whether there may be more later."""
        try:
            data = os.read(self._output, _AT_ONCE)
        except BlockingIOError:
            return True
        self._said = (self._said + data)[-_KEPT:]
        return bool(data)

    def _on_end(self) -> None:
        outcome = self._process.outcome()
        if outcome is None:
            return
        self._read()
        self._loop.remove_reader(self._output)
        self._loop.remove_reader(self._process.pidfd)
        self._process.hear_trouble()
        trouble = self._process.take_trouble()
        os.close(self._output)
        self._leaders.discard(self._process.pid)
        self._process.signal_group(signal.SIGKILL)  # what it left behind of itself
        self._process.reap()
        lines = self._said.decode(errors="replace").rstrip().splitlines()
        if trouble is None:
            self._done(outcome, lines[-1] if lines else "")
        else:
            self._done(None, trouble[1])


class Commands:
    """Runs commands beside the application of `launch`: as its user, with its environment, in its tree."""

    __slots__ = ("_around", "_launch", "_tree")

    def __init__(self, around: Surroundings, launch: Launch, tree: Tree) -> None:
        self._around = around
        self._launch = launch
        self._tree = tree

    def run(
        self, argv: tuple[str, ...], extra: Mapping[str, str], done: Callable[[Outcome | None, str], None]
    ) -> Command:
        """Run `argv`, with `extra` in its environment; raises RunError."""
        around, launch, tree = self._around, self._launch, self._tree
        plan = {**plan_of(around, launch), "argv": argv, "env": {**launch.env, **tree.env, **extra}}
        join = tree.enter()
        try:
            return Command(around.loop, around.leaders, plan, join, done)
        finally:
            if join is not None:
                os.close(join)
