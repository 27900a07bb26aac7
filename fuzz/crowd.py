"""Target: managers with good certificates and bad intentions, at one server's core.

Three links of two managers say anything that their sessions let through, in any order, while processes obey. The
invariants: no name has two applications alive, no run is executed twice, what the server says its own sessions let it
say, and an outcome that is told is the one that was.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cmapp.core import effects as do
from cmapp.core import messages as m
from cmapp.core.lifecycle import TABLE, Action, Event
from cmapp.core.outcome import Exited
from cmapp.core.roster import Roster
from cmapp.core.rules import OnExisting, Probe, ReadyRules, StopRules
from cmapp.core.session import Role, Session, State
from cmapp.core.wire import encode
from cmapp.errors import LocalProtocolError, RemoteProtocolError
from fuzz.breach import require, require_plain
from fuzz.draw import Draw

if TYPE_CHECKING:
    from cmapp.core.effects import Effect
    from cmapp.core.messages import Message

MANAGERS = ("n1", "n1", "n2")
RUNS = tuple(f"01234567-89ab-cdef-0123-{number:012d}" for number in range(4))
NAMES = ("web", "db")
BOOT = "07ba3553"
WALL = 1000.0
STEPS = 200

Link = tuple[int, int]  # which of them, and how often it has connected


class Crowd:
    """The server's core, its links and its processes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.roster = Roster(BOOT, most=3, receipts=3, retention=50.0)
        self.sessions: dict[Link, Session] = {}
        self.count = 0
        self.names: dict[str, str] = {}  # of runs that were prepared
        self.alive: dict[str, bool] = {}  # whether the leader of a run lives, as long as its tree does
        self.executed: set[str] = set()
        self.outcomes: dict[str, Exited] = {}
        self._effects: deque[Effect] = deque()

    # ---- managers ------------------------------------------------------------------------------------------

    def link(self, which: int) -> Link:
        """Return the link of that number, connected anew if it was closed."""
        for link in self.sessions:
            if link[0] == which:
                return link
        self.count += 1
        link = (which, self.count)
        self.sessions[link] = Session(Role.SERVER)
        return link

    def hear(self, link: Link, line: bytes) -> None:
        """Have a manager say something, as guest/connection.py takes it."""
        session = self.sessions[link]
        if session.state is not State.NEW:
            self.carry_out(self.roster.heard(link))
        try:
            for message in session.receive(line):
                self._answer(link, message)
                if link not in self.sessions:
                    return
        except RemoteProtocolError as error:
            require_plain(str(error))
            self._say(link, m.Bye(str(error)))
            self.lose(link)

    def lose(self, link: Link) -> None:
        """Have a link be gone."""
        if self.sessions.pop(link, None) is not None:
            self.carry_out(self.roster.lost(link, self.now))

    def _answer(self, link: Link, message: m.Message | m.Unrecognized) -> None:
        roster, now, wall = self.roster, self.now, WALL + self.now
        match message:
            case m.Hello(instance=instance):
                self.carry_out(roster.greet(link, MANAGERS[link[0]], instance, now))
                self._say(link, m.Welcome(message.id, 1))
            case m.Launch():
                self.carry_out(roster.launch(link, message, now, wall))
            case m.Stop():
                self.carry_out(roster.stop(link, message, now))
            case m.Detach():
                self.carry_out(roster.detach(link, message, now))
            case m.Hold():
                self.carry_out(roster.hold(link, message, now))
            case m.Acknowledge():
                self.carry_out(roster.acknowledge(link, message, wall))
            case m.Bye():
                self.lose(link)
            case _:
                self._answer_alone(link, message)

    def _answer_alone(self, link: Link, message: m.Message | m.Unrecognized) -> None:
        """Answer what the core is not asked about."""
        number = getattr(message, "id", None)
        if isinstance(message, m.Status):
            self._say(link, m.Runs(message.id))
        elif number is not None:
            self._say(link, m.Refused(m.Refusal.NO_RUN, "there is none", id=number))

    def _say(self, link: Link, message: Message) -> None:
        session = self.sessions.get(link)
        if session is None or session.state is State.CLOSED:
            return
        if isinstance(message, m.Exited):
            told, was = message.receipt.outcome, self.outcomes.get(message.receipt.run_id)
            require(told == was or not isinstance(told, Exited), "an outcome that was not", message, was)
        try:
            session.send(message)
        except LocalProtocolError as error:
            require(holds=False, what=f"the server was about to say what it must not: {error}")

    # ---- processes -----------------------------------------------------------------------------------------

    def happen(self, run_id: str, event: Event, **details: object) -> None:
        """Have something happen to a run, if it can."""
        charge = self.roster.charge(run_id)
        if charge is not None and TABLE[charge.run.state, event] is not None:
            self.carry_out(self.roster.happened(run_id, event, self.now, WALL + self.now, **details))

    def end(self, run_id: str, code: int) -> None:
        """Have the main process of a run exit, if it lives; the next time all that it started is gone."""
        if self.alive.get(run_id):
            self.alive[run_id] = False
            self.outcomes.setdefault(run_id, Exited(code))
            self.happen(run_id, Event.LEADER_ENDED, outcome=Exited(code))
        elif run_id in self.alive:
            del self.alive[run_id]
            self.happen(run_id, Event.TREE_EMPTY)

    def carry_out(self, effects: list[Effect]) -> None:
        """Do what is wanted, in order."""
        busy = bool(self._effects)
        self._effects += effects
        while self._effects and not busy:
            self._do(self._effects[0])
            self._effects.popleft()

    def _do(self, effect: Effect) -> None:
        now, wall = self.now, WALL + self.now
        match effect:
            case do.Spawn(launch=launch):
                self.names[launch.run_id] = launch.name
                self.carry_out(self.roster.prepared(launch.run_id, 100, 7))
            case do.Begin(run_id=run_id):
                self.carry_out(self.roster.happened(run_id, Event.RECORDED, now, wall))
            case do.Do(run_id=run_id, action=Action.EXECUTE):
                self._execute(run_id)
            case do.Do(run_id=run_id, action=Action.KILL_TREE):
                self.end(run_id, 137)
                self.end(run_id, 137)
            case do.Do(run_id=run_id, action=Action.WATCH_TREE) if self.alive.get(run_id) is None:
                self.happen(run_id, Event.TREE_EMPTY)
            case do.Say(link=link, message=message):
                self._say(link, message)  # type: ignore[arg-type]
            case do.Dismiss(link=link, reason=reason):
                self._say(link, m.Bye(reason))  # type: ignore[arg-type]
                self.lose(link)  # type: ignore[arg-type]
            case do.Log(text=text):
                require(text, "a line that says nothing")

    def _execute(self, run_id: str) -> None:
        name = self.names[run_id]
        require(run_id not in self.executed, "a run is executed twice", run_id)
        rivals = [other for other in self.alive if self.names[other] == name]
        require(not rivals, "two runs of one name are alive", run_id, rivals)
        self.executed.add(run_id)
        self.alive[run_id] = True
        self.carry_out(self.roster.happened(run_id, Event.SPAWNED, self.now, WALL + self.now))


def crowd(data: bytes) -> None:
    """Have managers say anything, in any order, to one server's core."""
    draw, world = Draw(data), Crowd()
    for _ in range(STEPS):
        if draw.done:
            return
        what = draw.below(16)
        if what < 8:  # noqa: PLR2004 - one of sixteen, as below
            world.hear(world.link(draw.below(3)), encode(_message(draw)))
        elif what < 11:  # noqa: PLR2004
            world.end(draw.pick(RUNS), draw.byte())
        elif what == 11:  # noqa: PLR2004
            events = Event.READY, Event.UNHEALTHY, Event.STOP_COMMAND_ENDED
            world.happen(draw.pick(RUNS), draw.pick(events))
        elif what < 14:  # noqa: PLR2004
            world.now += draw.pick((0.5, 2.0, 5.0, 61.0, 1000.0))
            world.carry_out(world.roster.clock(world.now, WALL + world.now))
        elif what == 14:  # noqa: PLR2004
            world.lose(world.link(draw.below(3)))
        else:
            world.hear(world.link(draw.below(3)), draw.chunk())


def _message(draw: Draw) -> Message:
    """Return what a manager says; the first of all is hello, mostly."""
    number, run_id = draw.byte(), draw.pick(RUNS)
    how = draw.byte()
    launch = m.Launch(
        number,
        draw.pick(NAMES),
        run_id,
        ("web",),
        stop=StopRules(timeout=float(how & 1)),
        ready=ReadyRules(Probe.NOTIFY) if how & 2 else None,
        on_existing=tuple(OnExisting)[how >> 2 & 3 if how >> 2 & 3 < 3 else 0],  # noqa: PLR2004 - there are three
        takeover=bool(how & 16),
        resume=how & 96 == 96,  # noqa: PLR2004 - seldom
    )
    hello = m.Hello(number, m.VERSIONS, instance="ab"[how & 1])
    return draw.pick(
        (
            *(hello, launch, launch, m.Stop(number, kill=bool(how & 1)), m.Detach(number), m.Bye("x")),
            *(m.Hold(number, draw.pick(NAMES), on=bool(how & 1)), m.Acknowledge(number, run_id), m.Poll(number)),
            *(m.Status(number), m.Tail(number)),
        )
    )
