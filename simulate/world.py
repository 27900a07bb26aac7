"""One guest, its server, and the managers on their hosts: everything of one schedule, and what is done to it.

The world plays the decisions of a schedule, then lets all faults cease and time go on, and asks in the end what
became of every run. The invariant: what happens follows from the schedule alone.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, NamedTuple

from disk import Disk
from faults import Faults
from judge import Judge
from kernel import Behaviour, Kernel
from manager import Manager
from reckoning import Reckoning
from server import Server
from timeline import Timeline
from wires import LATENCY, Wire
from words import RUN_ID, short

from cmapp.core import messages as m
from cmapp.core.outcome import Exited
from cmapp.core.pursuit import Pursuit
from cmapp.core.reading import Word
from cmapp.core.roster import Roster
from cmapp.core.rules import OrphanRules, Probe, ReadyRules, StopRules

if TYPE_CHECKING:
    from collections.abc import Callable

    from kernel import Process
    from schedule import Decision, Schedule, Task

WALL = 1.7e9  # when the world begins
QUIET = 1.0  # seconds after the last decision until faults cease
SETTLING = 40.0  # seconds in which everything has to be decided that a fault left open
PUSHING = 0.1  # seconds from the end of an application to a manager that is connected
ENDING = 60.0  # seconds in which all has to end after every application has ended
ENDLESS = 20_000  # steps that no schedule takes


READY = ReadyRules(Probe.NOTIFY, timeout=3.0)


class Cores(NamedTuple):
    """What is tested."""

    roster: type[Roster] = Roster
    pursuit: type[Pursuit] = Pursuit


class World:
    """One schedule being played."""

    def __init__(self, schedule: Schedule, cores: Cores, told: Callable[[str], None] | None = None) -> None:
        """`told` is given every step in words."""
        self.schedule = schedule
        self.cores = cores
        self.timeline = Timeline()
        self.dice = Random(schedule.seed)  # noqa: S311 - to be repeated, not to be secret
        self.tells = schedule.tells
        self.retention = schedule.retention
        self.booted = -1000.0
        self.boots = 1
        self.behaviours: dict[str, Behaviour] = {}
        self.names: dict[str, str] = {}
        self.managers: dict[int, Manager] = {}
        self.wires: list[Wire] = []
        self.partitions = 0
        self.judge = Judge(self)
        self.disk = Disk(self.timeline, self.dice)
        self.kernel = Kernel(self.timeline, self.dice, self.judge.executed, self.judge.ended)
        self.server: Server | None = None
        self.up = True
        self.jump = 0.0  # of the wall clock
        self._faults = Faults(self)
        self._told = told
        self._upcoming: list[Decision] = []

    @property
    def wall(self) -> float:
        """The guest's wall clock."""
        return WALL + self.timeline.now + self.jump

    @property
    def boot_id(self) -> str:
        """What the kernel calls this boot."""
        return f"boot-{self.boots}"

    @property
    def seen_from_outside(self) -> Word:
        """How the guest is, as whoever runs it sees it."""
        if not self.up:
            return Word.DOWN
        return Word.PAUSED if self.kernel.frozen else Word.RUNNING

    def trace(self, words: Callable[[], str]) -> None:
        """Tell what happens, if anybody wants to know."""
        if self._told is not None:
            self._told(f"{self.timeline.now:9.4f} s, step {self.timeline.steps:3}: {short(words())}")

    def called(self, run_id: str) -> str:
        """Return what people call a run."""
        return f"run {int(run_id[-12:])}"

    # ---- the play ------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Play the whole schedule; raises what the judge, or a core, has to say of it."""
        self.new_server({})
        timed = [decision for decision in self.schedule.decisions if decision.step is None]
        self._upcoming = [decision for decision in self.schedule.decisions if decision.step is not None]
        self._upcoming.sort(key=lambda decision: decision.step or 0, reverse=True)
        for decision in timed:
            self.timeline.at(decision.time, self._faults.do, decision)
        last = max((decision.time + min(decision.lasts, 20.0) for decision in timed), default=0.0)
        self._run(last + QUIET)
        self._upcoming.clear()
        self._faults.cease()
        reckoning = Reckoning(self)
        self._run(self.timeline.now + SETTLING)
        reckoning.settled()
        for process in list(self.kernel.processes):
            if process.leader and process.ran:
                self.kernel.end(process, Exited(0))
        self._run(self.timeline.now + PUSHING)
        reckoning.pushed()
        self._run(self.timeline.now + ENDING)
        reckoning.over()

    def _run(self, until: float) -> None:
        timeline = self.timeline
        while timeline.step(until):
            self.judge.look()
            self.judge.expect(timeline.steps < ENDLESS, "liveness", "something goes on and on")
            while self._upcoming and timeline.steps >= (self._upcoming[-1].step or 0):
                self._faults.do(self._upcoming.pop())
                self.judge.look()

    # ---- managers ------------------------------------------------------------------------------------------

    def run_id(self, number: int) -> str:
        """Return the run id that people call by a number."""
        return f"{RUN_ID}{number:012}"

    def launch(self, task: Task, run_id: str, number: int, *, resume: bool) -> m.Launch:
        """Return the launch of a task."""
        return m.Launch(
            number,
            task.name,
            run_id,
            ("app",),
            stop=StopRules(timeout=task.stop, command=("stop",) if self.behaviours[run_id].command else ()),
            orphan=OrphanRules(task.orphan, task.action),
            on_existing=task.existing,
            takeover=task.takeover and not resume,
            ready=None if self.behaviours[run_id].ready is None else READY,
            resume=resume,
        )

    def connect(self, manager: Manager, attempt: object) -> None:
        """Have a manager knock at the server's door."""
        self.timeline.after(LATENCY * (1 + self.dice.random()), self._knock, manager, attempt)

    def _knock(self, manager: Manager, attempt: object) -> None:
        server = self.server
        if self.partitions or not self.up:
            return
        if server is None or not server.alive or server.leaving or server.quitting:
            self.timeline.after(LATENCY, manager.refused, attempt, "connection refused")
            return
        server.event(self._accept, server, manager, attempt)

    def _accept(self, server: Server, manager: Manager, attempt: object) -> None:
        if not manager.alive:
            return
        wire = Wire(self.timeline, self.dice, f"{manager.task.number}", manager, server)
        self.wires = [wire for wire in self.wires if wire.alive]
        self.wires.append(wire)
        for _ in range(self.partitions):
            wire.hold("server")
            wire.hold("manager")
        server.accept(wire, f"host{manager.task.host}", manager.task.number)
        self.timeline.after(LATENCY, manager.connected, attempt, wire)

    def start(self, task: Task) -> None:
        """Start a manager."""
        run_id = self.run_id(task.run)
        self.behaviours.setdefault(run_id, task.behaviour)
        self.names.setdefault(run_id, task.name)
        manager = self.managers[task.number] = Manager(self, task, run_id)
        manager.event(manager.begin)

    # ---- the server and its guest --------------------------------------------------------------------------

    def new_server(self, handed: dict[str, Process], identity: object = None) -> None:
        """Start the server, unless one runs; an upgrade keeps its `identity` and what it `handed` over."""
        if not self.up or (self.server is not None and self.server.alive):
            return
        server = self.server = Server(self, identity or object(), handed)
        self.trace(lambda: "the server starts")
        self.judge.served()
        server.event(server.begin)

    def end_server(self, server: Server) -> None:
        """End the server, with all that it had not written; the kernel closes its connections."""
        server.die()
        self.disk.abandon()
        for wire in self.wires:
            wire.close("manager")
        self.judge.crashed()

    def lose_power(self) -> None:
        """Lose the guest: its processes, what was not synced, and every connection without a word."""
        self.up = False
        if self.server is not None:
            self.server.die()
        self.kernel.crash()
        self.disk.lose_power()
        self.judge.lost_power()
        for wire in self.wires:
            wire.cut(tell=())
        self.reach()

    def boot(self) -> None:
        """Start the guest again."""
        self.up = True
        self.boots += 1
        self.booted = self.timeline.now
        self.kernel = Kernel(self.timeline, self.dice, self.judge.executed, self.judge.ended)
        self.reach()
        self.new_server({})

    def reach(self) -> None:
        """Note, for wires that are dead, whether there is somebody who would say so."""
        for wire in self.wires:
            wire.reachable = self.up and not self.partitions
