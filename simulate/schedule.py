"""A schedule: who is started when, what its application does, and what goes wrong, as one list of decisions.

A decision is due at a time, or after a number of steps of the world, which reaches between two steps that no
clock could tell apart. The invariant: a schedule follows from its seed, and any part of it is a schedule too:
that is what makes a failure short enough to be read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from kernel import Behaviour

from cmapp.core.messages import Refusal
from cmapp.core.outcome import Exited, Outcome, Signaled
from cmapp.core.rules import OnExisting, OrphanAction

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH = 30.0  # seconds in which decisions fall
NAMES = ("web", "db")
PLAIN = Behaviour()


@dataclass(frozen=True)
class Task:
    """A manager to be started: `number` tells it from others, `run` is the run id that it asks for."""

    number: int
    name: str = "web"
    run: int = 1
    existing: OnExisting = OnExisting.REPLACE
    takeover: bool = False
    orphan: float = 4.0
    action: OrphanAction = OrphanAction.STOP
    stop: float = 2.0
    host: int = 1
    behaviour: Behaviour = PLAIN

    def __str__(self) -> str:
        """Say it in plain words."""
        existing = "takes over" if self.takeover else f"on existing {self.existing.value}"
        return (
            f"manager {self.number} is started on host {self.host}: run {self.run} of {self.name}, {existing}, "
            f"orphan {self.action.value} after {self.orphan:g} s, SIGKILL {self.stop:g} s after TERM; "
            f"its application {self.behaviour}"
        )


@dataclass(frozen=True)
class Decision:
    """Something that is done to the world at `time`, or before step `step` if that is set."""

    what: str
    time: float
    step: int | None = None
    who: int = 0
    lasts: float = 0.0
    ends: tuple[str, ...] = ()
    number: int = 0
    name: str = ""
    task: Task | None = None
    outcome: Outcome | None = None

    def __str__(self) -> str:
        """Say it in plain words."""
        when = f"at {self.time:g} s" if self.step is None else f"before step {self.step}"
        return f"{when}: {WORDS[self.what](self)}"


@dataclass(frozen=True)
class Schedule:
    """All that is decided: `seed` also makes the delays on the way.

    `tells` is whether the kernel tells how a process ended that is not the server's child, `retention` for how
    many seconds receipts are kept after they were acknowledged.
    """

    seed: int
    decisions: tuple[Decision, ...]
    tells: bool = True
    retention: float = 10 * 86400.0
    most: int = 8


def _ends(decision: Decision) -> str:
    return " and ".join(decision.ends) or "neither end"


WORDS: dict[str, Callable[[Decision], str]] = {
    "start": lambda d: str(d.task),
    "kill": lambda d: f"manager {d.who} is killed",
    "pause": lambda d: f"manager {d.who} stands still for {d.lasts:g} s",
    "term": lambda d: f"manager {d.who} is sent SIGTERM",
    "usr1": lambda d: f"manager {d.who} is sent SIGUSR1 (detach)",
    "cut": lambda d: f"manager {d.who}'s connection is cut, {_ends(d)} notices, {d.number} bytes still arrive",
    "stall": lambda d: f"nothing arrives at the {_ends(d)} of manager {d.who}'s connection for {d.lasts:g} s",
    "partition": lambda d: f"host and guest cannot reach each other for {d.lasts:g} s",
    "crash": lambda d: f"the server is killed, the next one comes after {d.lasts:g} s",
    "leave": lambda d: f"the server is sent SIGTERM, the next one comes after {d.lasts:g} s",
    "quit": lambda d: f"the server is sent SIGQUIT: it stops all; the next one comes after {d.lasts:g} s",
    "upgrade": lambda _: "the server is upgraded in place",
    "stop server": lambda d: f"the server stands still for {d.lasts:g} s",
    "freeze": lambda d: f"the guest is frozen for {d.lasts:g} s",
    "power": lambda d: f"the guest loses power and boots {d.lasts:g} s later",
    "full": lambda d: f"the disk is full for {d.lasts:g} s",
    "broken": lambda d: f"the disk fails for {d.lasts:g} s",
    "slow": lambda d: f"the disk is slow for {d.lasts:g} s",
    "wall": lambda d: f"the wall clock jumps by {d.lasts:g} s",
    "end": lambda d: f"the application {d.name} ends with {d.outcome}",
    "hold": lambda d: f"{d.name} is held",
    "resume": lambda d: f"{d.name} is no longer held",
    "unhealthy": lambda d: f"{d.name} is found unhealthy",
}


def draw(seed: int) -> Schedule:
    """Return the schedule of a seed."""
    dice = Random(seed)  # noqa: S311 - to be repeated, not to be secret
    tasks = _managers(dice)
    decisions = [Decision("start", time, task=task) for time, task in tasks]
    for _ in range(dice.choice((0, 1, 1, 2, 2, 3, 3, 4, 5, 7))):
        decisions += _fault(dice, [task for _, task in tasks])
    decisions.sort(key=lambda decision: decision.time)
    retention = Schedule.retention if dice.random() < 0.7 else 5.0  # noqa: PLR2004
    tells, most = dice.random() < 0.7, dice.choice((8, 8, 8, 1))  # noqa: PLR2004
    return Schedule(seed, tuple(decisions), tells=tells, retention=retention, most=most)


def _managers(dice: Random) -> list[tuple[float, Task]]:
    tasks: list[tuple[float, Task]] = []
    for number in range(1, 1 + dice.choice((1, 1, 2, 2, 2, 3, 3, 4))):
        run = number if not tasks or dice.random() < 0.75 else dice.choice(tasks)[1].run  # noqa: PLR2004
        same = next((task for _, task in tasks if task.run == run), None)
        task = Task(
            number,
            same.name if same else NAMES[dice.random() < 0.25],  # noqa: PLR2004
            run,
            dice.choice((OnExisting.REPLACE, OnExisting.REPLACE, OnExisting.ATTACH, OnExisting.REFUSE)),
            takeover=dice.random() < 0.15,  # noqa: PLR2004
            orphan=dice.choice((0.0, 2.0, 4.0, 4.0, 12.0)),
            action=dice.choice((OrphanAction.STOP, OrphanAction.STOP, OrphanAction.STOP, OrphanAction.KEEP)),
            stop=dice.choice((0.0, 1.0, 2.0)),
            host=dice.choice((1, 1, 1, 1, 2)),
            behaviour=same.behaviour if same else _behaviour(dice),
        )
        time = 0.0 if not tasks else dice.choice((0.0, dice.uniform(0, 0.1), dice.uniform(0, LENGTH / 2)))
        tasks.append((round(time, 3), task))
    return tasks


def _behaviour(dice: Random) -> Behaviour:
    if dice.random() < 0.08:  # noqa: PLR2004
        return Behaviour(refused=dice.choice((Refusal.NOT_FOUND, Refusal.NOT_EXECUTABLE, Refusal.RESOURCES)))
    return Behaviour(
        life=dice.choice((None, None, 0.0, 0.01, round(dice.uniform(0, LENGTH), 2))),
        outcome=_outcome(dice),
        obeys=dice.choice((0.0, 0.01, 0.5, 3.0, None)),
        code=dice.choice((None, 0, 143, 7)),
        forks=dice.choice((0, 0, 0, 1, 2)),
        dying=dice.choice((0.002, 0.002, 0.002, 0.5, 11.0)),
        command=dice.choice((0.0, 0.0, 0.0, 0.2, 5.0)),
        ready=dice.choice((None, None, None, None, 0.0, 1.0, 5.0)),
    )


def _outcome(dice: Random) -> Outcome:
    return Exited(dice.choice((0, 1, 3, 121, 255))) if dice.random() < 0.7 else Signaled(dice.choice((6, 9, 11)))  # noqa: PLR2004


def _fault(dice: Random, tasks: list[Task]) -> list[Decision]:
    what = dice.choice(_COMMON if dice.random() < 0.6 else tuple(WORDS)[1:])  # noqa: PLR2004
    time = round(dice.choice((dice.uniform(0, 0.02), dice.uniform(0, LENGTH), dice.uniform(0, LENGTH))), 3)
    step = dice.randrange(1, dice.choice((40, 150))) if dice.random() < 0.5 else None  # noqa: PLR2004
    task = dice.choice(tasks)
    fault = Decision(
        what,
        time,
        step,
        who=task.number,
        lasts=round(dice.choice((0.0, 0.01, dice.uniform(0, 1), dice.uniform(0, 6), dice.uniform(0, 20))), 3),
        ends=dice.choice((("manager",), ("server",), ("manager", "server"))),
        number=dice.choice((0, 0, 10, 100)),
        name=task.name,
        outcome=_outcome(dice),
    )
    if what == "cut" and dice.random() < 0.2:  # noqa: PLR2004
        fault = replace(fault, ends=())
    if what == "wall":
        fault = replace(fault, lasts=float(dice.choice((-86400 * 30, -3600, 60, 86400 * 30))))
    again = [fault]
    if what == "kill" and dice.random() < 0.7:  # noqa: PLR2004
        # As a cluster manager does: the same command again, which keeps its run id, or makes a new one.
        number = 10 + dice.randrange(10**6)
        run = task.run if dice.random() < 0.5 else number  # noqa: PLR2004
        behaviour = task.behaviour if run == task.run else _behaviour(dice)
        following = replace(task, number=number, run=run, behaviour=behaviour)
        again.append(Decision("start", round(time + dice.uniform(0, 8), 3), task=following))
    if what == "term" and dice.random() < 0.3:  # noqa: PLR2004
        again.append(replace(fault, time=round(time + dice.uniform(0, 3), 3), step=None))
    if what == "hold" and dice.random() < 0.7:  # noqa: PLR2004
        again.append(replace(fault, what="resume", time=round(time + dice.uniform(0, 15), 3), step=None))
    return again


_COMMON = ("kill", "term", "cut", "stall", "partition", "crash", "upgrade", "power", "end")
