"""One run, carried out: the lifecycle's actions become signals and messages, what happens becomes its events.

The lifecycle decides, this file does. It watches descriptors and one timer on the event loop and hands events
to `Run.step`; each action that comes back has one method here. The invariant: everything that is registered
with the loop is taken back before its descriptor is closed.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from cmapp.core.lifecycle import Action, Event, Run, State
from cmapp.core.messages import Launch, Phase, Refusal, RunReport, Stream
from cmapp.core.outcome import Reason, describe, signal_name
from cmapp.errors import RunError
from cmapp.guest.containment import survivors
from cmapp.guest.output import Capture
from cmapp.guest.process import Process, usage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from typing import Any

    from cmapp.core.outcome import Receipt

log = logging.getLogger(__name__)

LOOK_AGAIN = 0.2  # seconds until the tree is looked at again, when it could not be

_PHASES = {
    State.STARTING: Phase.STARTING,
    State.RUNNING: Phase.RUNNING,
    State.STOPPING: Phase.STOPPING,
    State.KILLING: Phase.STOPPING,
    State.CLEARING: Phase.ENDED,
    State.ENDED: Phase.ENDED,
}


class Owner(Protocol):
    """The manager of a run, as the run sees it: who it is, and what it is told."""

    @property
    def manager(self) -> str:
        """Its name, from its certificate."""

    def launched(self, run: Execution) -> None:
        """Tell that the command runs."""

    def not_started(self, error: RunError) -> None:
        """Tell that the command never ran."""

    def output(self, stream: Stream, offset: int, data: bytes) -> None:
        """Tell what the application wrote, if the manager wants to know."""

    def ended(self, receipt: Receipt) -> None:
        """Tell how the run ended."""


class Surroundings(NamedTuple):
    """What all runs of a server share.

    `leaders` are the processes that the server launched, `keep` the bytes kept of each stream, `receive`
    takes a run's receipt, `freed` is told when nothing of a run is left.
    """

    loop: asyncio.AbstractEventLoop
    leaders: set[int]
    keep: int
    receive: Callable[[Execution, Receipt], None]
    freed: Callable[[Execution], None]


class Execution:
    """A run on this guest; `owner` is None when its manager is gone."""

    __slots__ = (
        "_around",
        "_captures",
        "_process",
        "_run",
        "_survivors",
        "_timer",
        "_trouble",
        "launch",
        "manager",
        "owner",
    )

    def __init__(self, around: Surroundings, launch: Launch, owner: Owner, plan: Mapping[str, Any]) -> None:
        """Start the run by `plan`, what the trampoline needs; raises RunError when it cannot be started."""
        self.launch = launch
        self.owner: Owner | None = owner
        self.manager = owner.manager
        self._around = around
        self._timer: asyncio.TimerHandle | None = None
        self._survivors: list[int] = []
        self._trouble: RunError | None = None
        self._process = Process(plan)
        self._run = Run(launch.stop, time.monotonic(), time.time())
        self._captures = {
            Stream.STDOUT: Capture(self._process.stdout, around.keep),
            Stream.STDERR: Capture(self._process.stderr, around.keep),
        }
        around.leaders.add(self._process.pid)
        around.loop.add_reader(self._process.trouble, self._on_trouble)
        around.loop.add_reader(self._process.pidfd, self._on_leader)

    # ---- what others ask -----------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the application itself still runs, or may."""
        return self._run.state not in (State.CLEARING, State.ENDED)

    @property
    def pid(self) -> int:
        """The process that leads the run."""
        return self._process.pid

    def stop(self, reason: Reason, *, kill: bool = False) -> None:
        """Stop the run by its rules, or by SIGKILL at once."""
        self._step(Event.KILL_WANTED if kill else Event.STOP_WANTED, reason=reason)

    def abandon(self) -> None:
        """Go on without the manager: it is lost, so the run is stopped."""
        self.owner = None
        if self.alive:
            log.warning("%s: its manager is lost: it is stopped", self._name)
            self.stop(Reason.MANAGER_LOST)

    def report(self) -> RunReport:
        """Return how the run is, measured now."""
        alive = self.alive
        used = usage(self._process.pid) if alive else None
        return RunReport(
            name=self.launch.name,
            run_id=self.launch.run_id,
            state=_PHASES[self._run.state],
            pid=self._process.pid if alive else None,
            uptime=self._run.uptime(time.monotonic()),
            cpu=used.cpu if used else 0.0,
            memory=used.memory if used else 0,
            processes=used.processes if used else 0,
        )

    def tail(self, stream: Stream, limit: int) -> tuple[int, bytes]:
        """Return the last output that was kept, and where in the stream it begins."""
        return self._captures[stream].tail(limit)

    # ---- what happens --------------------------------------------------------------------------------------

    def _on_trouble(self, *, last: bool = False) -> None:
        if not self._process.hear_trouble() and not last:
            return
        self._around.loop.remove_reader(self._process.trouble)
        trouble = self._process.take_trouble()
        if trouble is None:
            self._step(Event.SPAWNED)
            for stream, capture in self._captures.items():  # from here on, so that nothing is heard before "launched"
                self._around.loop.add_reader(capture.descriptor, self._on_output, stream)
        else:
            code, text = trouble
            if code == Refusal.RESOURCES and self._run.state is State.KILLING:
                code, text = Refusal.STOPPED, "it was killed before it was launched"
            self._trouble = RunError(code, text)
            self._step(Event.SPAWN_FAILED)

    def _on_leader(self) -> None:
        outcome = self._process.outcome()
        if outcome is None:
            return
        self._around.loop.remove_reader(self._process.pidfd)
        if not self._process.trouble_read:
            self._on_trouble(last=True)  # whoever could say more has ended
        self._step(Event.LEADER_ENDED, outcome=outcome)

    def _on_output(self, stream: Stream) -> None:
        data = self._captures[stream].read()
        if data:
            self._hand_on(stream, data)
        elif data is None:
            if self._run.state is State.RUNNING:
                self._on_leader()  # its streams end a moment before it does, and that moment may be over by now
            self._close(stream)

    def _on_survivor(self) -> None:
        self._forget_survivors()
        self._look_at_tree()

    def _on_deadline(self) -> None:
        self._timer = None
        self._step(Event.DEADLINE_PASSED)

    def _step(self, event: Event, **details: Any) -> None:
        now = time.monotonic()
        before = self._run.deadline
        actions = self._run.step(event, now, **details)
        if self._run.deadline != before:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            if self._run.deadline is not None:
                self._timer = self._around.loop.call_later(self._run.deadline - now, self._on_deadline)
        for action in actions:
            self._DO[action](self)

    # ---- what is done --------------------------------------------------------------------------------------

    def _signal_tree(self) -> None:
        rules = self.launch.stop
        log.info(
            "%s: stopping with SIG%s, SIGKILL after %g s",
            self._name,
            signal_name(rules.signal),
            rules.timeout,
        )
        self._process.signal_group(rules.signal)
        self._process.signal_group(signal.SIGCONT)  # a stopped process would never see the stop signal

    def _kill_tree(self) -> None:
        self._process.signal_group(signal.SIGKILL)

    def _watch_tree(self) -> None:
        # Not at once: the next turn of the loop, after the end was told.
        self._around.loop.call_soon(self._look_at_tree)

    def _look_at_tree(self) -> None:
        try:
            self._survivors = survivors(self._process.pid, self._around.leaders)
            if not self._survivors:
                # One that forked and ended while we looked leaves a child unseen; SIGKILL to the group sees all.
                self._kill_tree()
                self._survivors = survivors(self._process.pid, self._around.leaders)
        except OSError:  # blind for lack of descriptors: not to see anybody does not mean that nobody is there
            self._around.loop.call_later(LOOK_AGAIN, self._look_at_tree)
            return
        if not self._survivors:
            self._step(Event.TREE_EMPTY)
        for pidfd in self._survivors:
            self._around.loop.add_reader(pidfd, self._on_survivor)

    def _tell_launched(self) -> None:
        log.info("%s: launched as process %d", self._name, self._process.pid)
        if self.owner is not None:
            self.owner.launched(self)

    def _tell_not_started(self) -> None:
        log.warning("%s: not started: %s", self._name, self._trouble)
        if self.owner is not None and self._trouble is not None:
            self.owner.not_started(self._trouble)
        self.owner = None  # it may launch again at once, and that is another run

    def _tell_ended(self) -> None:
        for stream in self._captures:  # the last words of all that have ended by now, the leader or the whole tree
            self._drain(stream)
        receipt = self._run.receipt(self.launch.name, self.launch.run_id, time.monotonic())
        if self.owner is not None:
            self.owner.ended(receipt)
        log.info("%s: %s", self._name, describe(receipt))
        self._around.receive(self, receipt)

    def _complain(self) -> None:
        log.error("%s: processes survive SIGKILL, its name stays taken until they are gone", self._name)

    def _free_name(self) -> None:
        for stream in self._captures:
            self._close(stream)
        self._around.leaders.discard(self._process.pid)
        self._process.reap()
        self._around.freed(self)

    @property
    def _name(self) -> str:
        return f"{self.launch.name} (run {self.launch.run_id})"

    def _drain(self, stream: Stream) -> None:
        for data in self._captures[stream].last_words():
            self._hand_on(stream, data)

    def _hand_on(self, stream: Stream, data: bytes) -> None:
        if self.owner is not None:
            self.owner.output(stream, self._captures[stream].total - len(data), data)

    def _close(self, stream: Stream) -> None:
        capture = self._captures[stream]
        if not capture.closed:
            self._around.loop.remove_reader(capture.descriptor)
            capture.close()

    def _forget_survivors(self) -> None:
        for pidfd in self._survivors:
            self._around.loop.remove_reader(pidfd)
            os.close(pidfd)
        self._survivors = []

    _DO: ClassVar[dict[Action, Callable[[Execution], None]]] = {
        Action.SIGNAL_TREE: _signal_tree,
        Action.KILL_TREE: _kill_tree,
        Action.WATCH_TREE: _watch_tree,
        Action.TELL_LAUNCHED: _tell_launched,
        Action.TELL_NOT_STARTED: _tell_not_started,
        Action.TELL_ENDED: _tell_ended,
        Action.COMPLAIN: _complain,
        Action.FREE_NAME: _free_name,
    }
