"""Commands that are run beside an application, as it is run itself: each alone, each with a limit of time.

Here are the health command, in step with core/checkup.py, and the stop command. The invariant: whoever asked is
told of a command's end at most once, and of one that was killed only when it has ended, so that there are never
two; the stop command is the exception, for the stop has to go on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cmapp.core.checkup import Action, Event
from cmapp.core.duration import format_duration
from cmapp.core.outcome import Exited, Outcome, Unknown, describe
from cmapp.core.text import printable
from cmapp.errors import RunError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from cmapp.core.checkup import Checkup

    Done = Callable[[Outcome | None, str], None]

    class Running(Protocol):
        """A command that runs: `done` is called once it has ended, killed or not."""

        def kill(self) -> None:
            """End it by SIGKILL."""

    RunCommand = Callable[[tuple[str, ...], Mapping[str, str], Done], Running]

log = logging.getLogger(__name__)

SHOWN = 200  # characters of what a command said


class Trial:
    """One command, run once; `done` is told of its end once, unless it was forgotten."""

    __slots__ = ("_done", "_handle", "ended")

    def __init__(self, run_command: RunCommand, argv: tuple[str, ...], env: Mapping[str, str], done: Done) -> None:
        """Run it; one that cannot be run, for lack of room, is told as one that did not start."""
        self._done: Done | None = done
        self._handle: Running | None = None
        self.ended = False
        try:
            self._handle = run_command(argv, env, self._on_end)
        except RunError as error:
            self._on_end(None, str(error))

    def kill(self) -> None:
        """End it, if it has not."""
        if self._handle is not None and not self.ended:
            self._handle.kill()

    def forget(self) -> None:
        """End it, and hear no more of it."""
        self._done = None
        self.kill()

    def _on_end(self, outcome: Outcome | None, line: str) -> None:
        self.ended = True
        done, self._done = self._done, None
        if done is not None:
            done(outcome, line)


def trouble_of(outcome: Outcome | None, line: str) -> str:
    """Return what was wrong with a command that ended so, its last line with it; "" for one that succeeded."""
    if outcome == Exited(0):
        return ""
    how = "could not be run" if outcome is None else describe(outcome)
    return f"{how}: {printable(line.strip()[:SHOWN])}" if line.strip() else how


class Health:
    """The health command of the run `name`, in step with its `book`; `tell` is told once why it is unhealthy."""

    __slots__ = ("_book", "_closed", "_held", "_loop", "_name", "_run_command", "_tell", "_timer", "_trial")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        book: Checkup,
        run_command: RunCommand,
        tell: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._name = name
        self._book = book
        self._run_command = run_command
        self._tell = tell
        self._trial: Trial | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._held = self._closed = False
        self._do(())

    @property
    def text(self) -> str:
        """How its health is, for a report."""
        return self._book.text

    def hold(self, *, on: bool) -> None:
        """Pause, or go on."""
        if on is not self._held and not self._closed:
            self._held = on
            self._do(self._book.hold(self._loop.time(), on=on))

    def close(self) -> None:
        """Check no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._trial is not None:
            self._trial.forget()

    def _on_time(self) -> None:
        self._do(self._book.tick(self._loop.time()))

    def _on_end(self, outcome: Outcome | None, line: str) -> None:
        if outcome is None or isinstance(outcome, Unknown):  # which says nothing of the application
            event = Event.UNTOLD
        else:
            event = Event.PASSED if outcome == Exited(0) else Event.FAILED
        before = self.text
        actions = self._book.answer(event, self._loop.time(), trouble_of(outcome, line))
        if event is Event.UNTOLD and self.text != before:
            log.warning("%s: its health is %s", self._name, self.text)
        self._do(actions)

    def _do(self, actions: tuple[Action, ...]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._book.wake, self._on_time) if self._book.wake is not None else None
        for action in actions:
            if action is Action.ASK:
                self._trial = Trial(self._run_command, self._book.rules.command, {}, self._on_end)
            elif action is Action.KILL and self._trial is not None:
                self._trial.kill()
            elif action is Action.TELL:
                self._tell(self._book.verdict)


class StopCommand:
    """The command that stops an application in its own way, within `limit` seconds; `done` is told its end, once."""

    __slots__ = ("_command", "_done", "_limit", "_loop", "_timer", "_trial")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, command: tuple[str, ...], limit: float, done: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._command = command
        self._limit = limit
        self._done = done
        self._trial: Trial | None = None
        self._timer = loop.call_later(limit, self._on_limit)

    def start(self, run_command: RunCommand, env: dict[str, str]) -> None:
        """Run it."""
        self._trial = Trial(run_command, self._command, env, self._on_end)

    def close(self) -> None:
        """Kill it if it still runs; `done` is not told any more."""
        self._timer.cancel()
        if self._trial is not None:
            self._trial.forget()

    def _on_limit(self) -> None:
        """Go on without it: its end may never come."""
        self.close()
        self._done(f"the stop command gave no answer within {format_duration(self._limit)}")

    def _on_end(self, outcome: Outcome | None, line: str) -> None:
        self._timer.cancel()
        trouble = trouble_of(outcome, line)
        self._done(f"the stop command {trouble}" if trouble else "")
