"""The guest's kernel: processes that start, fork, end and are killed, and who may learn how they ended.

A process is known by pid and start time; pids are few, so they are soon used again. What an ended process leaves
is held for its parent; when the parent dies, init takes it, and nobody can ask any more except through a pidfd
that was opened while it lived, if this kernel tells then. The invariant: `truth` is what really happened, and
nothing that the server does can change it but a signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmapp.core.outcome import Exited, Outcome, Signaled

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from timeline import Ticket, Timeline

PIDS = range(100, 112)  # few: a pid is soon somebody else's
KILL, TERM = 9, 15


@dataclass(frozen=True)
class Behaviour:
    """What an application does by itself, and when it is asked to stop.

    It ends after `life` seconds with `outcome`; the trampoline refuses it if `refused`. After the stop signal it
    ends `obeys` seconds later by that signal, or with code `code` if that is set, or never. It leaves `forks`
    processes in sessions of their own which ignore the stop signal, and dies `dying` seconds after SIGKILL. Its stop
    command takes `command` seconds, 0 is none. If its launch asks for readiness, it is ready after `ready` seconds.
    """

    life: float | None = None
    outcome: Outcome = Exited(0)  # noqa: RUF009 - a record never changes
    refused: str = ""
    obeys: float | None = 0.05
    code: int | None = None
    forks: int = 0
    dying: float = 0.002
    command: float = 0.0
    ready: float | None = None

    def __str__(self) -> str:
        """Say it in plain words."""
        if self.refused:
            return f"cannot be executed ({self.refused})"
        end = "by itself never ends" if self.life is None else f"ends after {self.life:g} s with {self.outcome}"
        stop = "ignores TERM" if self.obeys is None else f"obeys TERM after {self.obeys:g} s"
        how = "" if self.code is None or self.obeys is None else f" with code {self.code}"
        forks = f", leaves {self.forks} processes behind" if self.forks else ""
        dying = f", dies {self.dying:g} s after SIGKILL" if self.dying > 0.01 else ""  # noqa: PLR2004
        command = f", its stop command takes {self.command:g} s" if self.command else ""
        ready = "" if self.ready is None else f", it is ready after {self.ready:g} s"
        return f"{end}, {stop}{how}{forks}{dying}{command}{ready}"


class Process:
    """A process of a run: the leader, or one that it left behind. `ran` tells whether it is the application yet."""

    __slots__ = (
        "alive", "began", "behaviour", "go", "held", "leader", "outcome", "parent", "pid", "ran", "refused", "run_id",
        "signals", "start", "tickets", "told", "watchers",
    )  # fmt: skip

    def __init__(self, pid: int, start: int, run_id: str, behaviour: Behaviour, parent: object) -> None:
        self.pid = pid
        self.start = start
        self.run_id = run_id
        self.behaviour = behaviour
        self.parent: object | None = parent  # the server that it is a child of, None is init
        self.leader = True
        self.go = False  # whether it may become the application
        self.ran = False
        self.began = 0.0  # when it became the application
        self.alive = True
        self.held = False  # a zombie that its parent has not reaped
        self.outcome: Outcome | None = None
        self.told = False  # whether the server knows that the application runs, or cannot
        self.refused = ""  # why the trampoline could not become the application
        self.signals: list[tuple[float, int]] = []
        self.tickets: list[Ticket] = []
        self.watchers: list[Callable[[Process], None]] = []


class Kernel:
    """All processes of runs on the guest, in one boot."""

    def __init__(
        self, timeline: Timeline, dice: Random, began: Callable[[Process], None], ended: Callable[[Process], None]
    ) -> None:
        """`began` is told of every application that begins to run, `ended` of every process that ended."""
        self.processes: list[Process] = []  # alive, or zombies
        self.frozen = False
        self.up = True
        self._timeline = timeline
        self._dice = dice
        self._began = began
        self._ended = ended
        self._next = 0
        self._later: list[tuple[Callable[..., None], tuple[object, ...]]] = []

    def spawn(self, run_id: str, behaviour: Behaviour, parent: object) -> Process:
        """Start the trampoline of a run, which waits for `go`."""
        process = Process(self._pid(), self._next, run_id, behaviour, parent)
        self.processes.append(process)
        return process

    def execute(self, process: Process) -> None:
        """Let the application run."""
        process.ran = True
        process.began = self._timeline.now
        for ticket in process.tickets:
            ticket.cancel()
        self._began(process)
        behaviour = process.behaviour
        for _ in range(behaviour.forks):
            child = Process(self._pid(), self._next, process.run_id, behaviour, None)
            child.leader, child.ran = False, True
            self.processes.append(child)
        if behaviour.life is not None:
            self.later(process, behaviour.life, behaviour.outcome)

    def later(self, process: Process, delay: float, outcome: Outcome) -> None:
        """Have the process end after `delay`."""
        process.tickets.append(self._timeline.after(delay, self.end, process, outcome))

    def end(self, process: Process, outcome: Outcome) -> None:
        """End it now, or when the guest thaws."""
        if self.frozen:
            self.postpone(self.end, process, outcome)
            return
        if not process.alive:
            return
        process.alive = False
        process.outcome = outcome
        process.held = process.parent is not None
        if not process.held:
            self.processes.remove(process)
        for ticket in process.tickets:
            ticket.cancel()
        self._ended(process)
        watchers, process.watchers = process.watchers, []
        for watcher in watchers:
            watcher(process)

    def postpone(self, act: Callable[..., None], *values: object) -> None:
        """Have something happen when the guest thaws."""
        self._later.append((act, values))

    def signal(self, process: Process, number: int) -> None:
        """Send it a signal."""
        if not process.alive:
            return
        process.signals.append((self._timeline.now, number))
        behaviour = process.behaviour
        if number == KILL:
            self.later(process, behaviour.dying, Signaled(KILL))
        elif not process.leader or (process.ran and behaviour.obeys is None):
            return
        elif process.ran and behaviour.obeys is not None and behaviour.code is not None:
            self.later(process, behaviour.obeys, Exited(behaviour.code))
        else:
            self.later(process, (behaviour.obeys or 0.0) if process.ran else 0.001, Signaled(number))

    def reap(self, process: Process) -> None:
        """Let a zombie go: its pid may be used again."""
        if process.held:
            process.held = False
            self.processes.remove(process)

    def orphan(self, parent: object) -> None:
        """Give the children of a server that died to init, which reaps those that ended; no `go` comes any more."""
        for process in [process for process in self.processes if process.parent is parent]:
            process.parent = None
            process.watchers.clear()
            if not process.alive:
                self.reap(process)
            elif not process.go:
                self.later(process, self._dice.choice((0.001, 0.2)), Exited(1))  # the trampoline finds out

    def find(self, pid: int, start: int) -> Process | None:
        """Return the living process of that pid and start time."""
        found = (process for process in self.processes if process.alive and process.pid == pid)
        return next((process for process in found if process.start == start), None)

    def tree(self, run_id: str) -> list[Process]:
        """Return the living processes of a run."""
        return [process for process in self.processes if process.alive and process.run_id == run_id]

    def freeze(self) -> None:
        """Stop everything."""
        self.frozen = True

    def thaw(self) -> None:
        """Let everything go on: what would have happened meanwhile happens now."""
        self.frozen = False
        later, self._later = self._later, []
        for act, values in later:
            act(*values)

    def crash(self) -> None:
        """Lose everything."""
        self.up = False
        for process in self.processes:
            process.alive = False
            for ticket in process.tickets:
                ticket.cancel()
        self.processes.clear()
        self._later.clear()

    def _pid(self) -> int:
        self._next += 1
        taken = {process.pid for process in self.processes}
        free = [pid for pid in PIDS if pid not in taken]
        return self._dice.choice(free) if free else PIDS.stop + self._next
