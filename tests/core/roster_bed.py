"""A guest around the roster that does at once whatever it wants done: processes that obey, a disk that keeps.

What a test looks at is what each link has heard, in words, and what the files hold. Nothing is decided here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from cmapp.core import effects as do
from cmapp.core import messages as m
from cmapp.core.charge import Facts
from cmapp.core.lifecycle import Action, Event
from cmapp.core.outcome import Exited, Unknown, describe
from cmapp.core.roster import Roster

if TYPE_CHECKING:
    from cmapp.core.effects import Effect
    from cmapp.core.outcome import Outcome, Receipt
    from cmapp.core.run import Run

BOOT = "07ba3553"
WALL = 1_000_000.0  # what the wall's clock shows when the machine's is at 0
GONE = Unknown("it ended while there was no server")


def run_id(number: int) -> str:
    """Return the run id of that run."""
    return f"01234567-89ab-cdef-0123-{number:012d}"


class Bed:
    """A roster and its guest. Links are named by words; runs by numbers."""

    def __init__(self, *, most: int = 5, receipts: int = 100, retention: float = 100.0, boot: str = BOOT) -> None:
        self.now = 0.0
        self.settings = {"most": most, "receipts": receipts, "retention": retention}
        self.boot = boot
        self.files: dict[int, list[dict[str, Any]]] = {}
        self.settled: set[int] = set()
        self.alive: dict[int, int] = {}  # the processes of applications: the pid by the run
        self.started: list[int] = []  # the runs whose command was executed
        self.full = False  # whether the disk is
        self.refusal: tuple[str, str] | None = None  # why commands cannot be executed
        self.unprepared: tuple[str, str] | None = None  # why there are not even processes
        self.slow = False  # whether what is let go has not become the command yet
        self._begin()

    def _begin(self) -> None:
        self.roster = Roster(self.boot, **self.settings)  # type: ignore[arg-type]
        self.heard: dict[str, list[str]] = {}
        self.done: list[tuple[int, Action]] = []
        self.held: list[tuple[int, bool]] = []
        self.output_dropped: list[int] = []
        self.logged: list[tuple[str, str]] = []
        self._effects: deque[Effect] = deque()
        self._number = 0

    # ---- what managers do ----------------------------------------------------------------------------------

    def connect(self, *links: str, manager: str = "host1", instance: str | None = None) -> None:
        """Have managers connect, each a process of its own unless an instance is named."""
        for link in links:
            self.heard[link] = []
            who = link if instance is None else instance
            self.carry_out(self.roster.greet(link, manager, who, self.now), link)

    def launch(self, link: str, number: int, name: str = "web", **fields: Any) -> str:
        """Have the manager launch, and return what it hears."""
        launch = m.Launch(self._next(), name, run_id(number), **{"argv": ("web",), **fields})
        return self.carry_out(self.roster.launch(link, launch, self.now, WALL + self.now), link)

    def answer(self, link: str) -> str:
        """Have the manager be heard."""
        return self.carry_out(self.roster.heard(link), link)

    def lose(self, *links: str) -> None:
        """Have links be cut, one after the other."""
        for link in links:
            del self.heard[link]
            self.carry_out(self.roster.lost(link, self.now))

    def stop(self, link: str, *, kill: bool = False) -> str:
        """Have the manager stop its run."""
        return self.carry_out(self.roster.stop(link, m.Stop(self._next(), kill=kill), self.now), link)

    def detach(self, link: str) -> str:
        """Have the manager leave its run."""
        return self.carry_out(self.roster.detach(link, m.Detach(self._next()), self.now), link)

    def hold(self, link: str, name: str = "web", *, on: bool = True) -> str:
        """Have the manager hold a run, or resume it."""
        return self.carry_out(self.roster.hold(link, m.Hold(self._next(), name, on), self.now), link)

    def acknowledge(self, link: str, number: int) -> str:
        """Have the manager acknowledge an outcome."""
        message = m.Acknowledge(self._next(), run_id(number))
        return self.carry_out(self.roster.acknowledge(link, message, WALL + self.now), link)

    def hears(self, link: str) -> str:
        """Return what the link has heard since it was last asked, in words."""
        said, self.heard[link] = "; ".join(self.heard[link]), []
        return said

    # ---- what happens --------------------------------------------------------------------------------------

    def happen(self, number: int, *events: Event, **details: Any) -> None:
        """Have something happen to a run."""
        for event in events:
            if event is Event.LEADER_ENDED:
                self.alive.pop(number, None)
            told = self.roster.happened(run_id(number), event, self.now, WALL + self.now, **details)
            self.carry_out(told)

    def end(self, number: int, outcome: Outcome | None = None) -> None:
        """Have a run end, with all that it started."""
        self.happen(number, Event.LEADER_ENDED, outcome=outcome or Exited(0))
        self.happen(number, Event.TREE_EMPTY)

    def wait(self, seconds: float) -> None:
        """Let time pass, with a look at the clock whenever the roster wants one."""
        until = self.now + seconds
        while (due := self.roster.deadline) is not None and due <= until:
            self.now = max(self.now, due)
            self.tick()
            assert (self.roster.deadline or until + 1) > self.now
        self.now = until
        self.tick()

    def tick(self) -> None:
        """Have the clock looked at."""
        self.carry_out(self.roster.clock(self.now, WALL + self.now))

    def end_all(self) -> None:
        """Have the server be stopped with all that it runs."""
        self.carry_out(self.roster.end_all(self.now))

    def restart(self, *, boot: str = BOOT) -> None:
        """Have a new server take over: nobody is connected, and what is not in the files is not known."""
        self.boot = boot
        self._begin()
        found = [Facts(entries, settled=number in self.settled) for number, entries in self.files.items() if entries]
        self.carry_out(self.roster.load(found, self.now, WALL + self.now))

    # ---- what is seen --------------------------------------------------------------------------------------

    def run(self, number: int) -> Run:
        """Return a run that is there."""
        charge = self.roster.charge(run_id(number))
        assert charge is not None
        return charge.run

    def receipts(self, number: int) -> list[dict[str, Any]]:
        """Return all receipts that were ever written for a run, but for those whose file is forgotten."""
        return [entry["receipt"] for entry in self.files.get(number, ()) if "receipt" in entry]

    def actions(self) -> list[Action]:
        """Return what was to be done since this was last asked."""
        done, self.done = self.done, []
        return [action for _, action in done]

    # ---- what is done --------------------------------------------------------------------------------------

    def carry_out(self, effects: list[Effect], link: str = "") -> str:
        """Do what is wanted, in order, and what comes of it afterwards; return what `link` hears."""
        busy = bool(self._effects)
        self._effects += effects
        while self._effects and not busy:
            self._do(self._effects[0])
            self._effects.popleft()
        return self.hears(link) if link in self.heard and not busy else ""

    def _do(self, effect: Effect) -> None:  # noqa: C901, PLR0912 - one branch for each effect
        match effect:
            case do.Spawn(launch=launch):
                self._spawn(launch)
            case do.Begin(run_id=name, entries=entries):
                if not self.full:
                    self.files[_number(name)] = list(entries)
                self.happen(_number(name), Event.NOT_RECORDED if self.full else Event.RECORDED)
            case do.Do(run_id=name, action=action):
                self.done.append((_number(name), action))
                if action is Action.EXECUTE and not self.slow:
                    self.execute(_number(name))
            case do.Write(run_id=name, entry=entry):
                if _number(name) in self.files:
                    self.files[_number(name)].append(entry)
            case do.Settle(run_id=name):
                self.settled.add(_number(name))
            case do.Forget(run_id=name):
                self.files.pop(_number(name), None)
                self.settled.discard(_number(name))
            case do.DropOutput(run_id=name):
                self.output_dropped.append(_number(name))
            case do.Adopt(run_id=name, pid=pid):
                if self.alive.get(_number(name)) == pid:
                    self.carry_out(self.roster.adopted(name))
                else:
                    self.happen(_number(name), Event.LEADER_ENDED, outcome=GONE)
            case do.Hold(run_id=name, on=on):
                self.held.append((_number(name), on))
            case do.Say(link=link, message=message):
                self.heard[str(link)].append(words(message))
            case do.Dismiss(link=link, reason=reason):
                self.heard[str(link)].append(f"bye: {reason}")
                self.carry_out(self.roster.lost(link, self.now))
            case do.Log(level=level, text=text):
                self.logged.append((level, text))
            case _:
                raise AssertionError(effect)

    def execute(self, number: int) -> None:
        """Have what was prepared become the command, or not."""
        if self.refusal is not None:
            self.happen(number, Event.SPAWN_FAILED, refusal=self.refusal)
        else:
            self.started.append(number)
            self.alive[number] = 100 + number
            self.happen(number, Event.SPAWNED)

    def _spawn(self, launch: m.Launch) -> None:
        if self.unprepared is not None:
            self.carry_out(self.roster.unprepared(launch.run_id, *self.unprepared, self.now, WALL + self.now))
        else:
            self.carry_out(self.roster.prepared(launch.run_id, 100 + _number(launch.run_id), 7))

    def _next(self) -> int:
        self._number += 1
        return self._number


def bed_that(**flaws: object) -> Bed:
    """Return a guest with these flaws, and a manager."""
    bed = Bed()
    for name, value in flaws.items():
        setattr(bed, name, value)
    bed.connect("one")
    return bed


def bed_with_a_run(**fields: Any) -> Bed:
    """Return a guest with run 1 of web, whose manager `old` is there, and a `new` one without a run."""
    bed = Bed()
    bed.connect("old")
    bed.connect("new", manager="host2")
    assert bed.launch("old", 1, **fields) == "launched 1"
    return bed


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def words(message: m.Message) -> str:
    """Return what a message says, as far as a test cares."""
    match message:
        case m.Launched(run_id=name, attached=attached):
            return f"launched {_number(name)}{' attached' if attached else ''}"
        case m.Exited(receipt=receipt):
            return f"exited {_number(receipt.run_id)} {ending(receipt)}"
        case m.Ready(run_id=name):
            return f"ready {_number(name)}"
        case m.Refused(code=code, text=text):
            return f"refused {code}: {text}"
        case _:
            return message.word


def ending(receipt: Receipt) -> str:
    """Return a receipt in words."""
    return f"{receipt.reason.value}: {describe(receipt.outcome)}"
