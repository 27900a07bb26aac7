"""The server in this world: the production roster, sessions and codec, and as little around them as possible.

What is done here is what guest/supervisor.py, execution.py and connection.py do for the roster: bytes become
messages, messages inputs of the roster, its effects become bytes, signals and lines of files. The invariant: no
decision about a run is taken here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from actor import Actor
from connection import Connection
from executions import Executions
from papers import Papers
from words import words

from cmapp.core import effects as do
from cmapp.core import messages as m
from cmapp.core.lifecycle import Event
from cmapp.core.outcome import Unknown
from cmapp.core.session import State as Said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kernel import Process
    from wires import Wire
    from world import World

ULP = 1e-6  # seconds: sums of times in two clocks may differ by so much, and nothing is due before it is
LATE = 3.0  # seconds that a sweep of the connections may be late before it judges nobody


class Server(Actor):
    """One life of the server; `identity` is what its children know their parent by, an upgrade keeps it."""

    def __init__(self, world: World, identity: object, handed: dict[str, Process]) -> None:
        super().__init__(world.timeline)
        self._world = world
        self.identity = identity
        self.roster = world.cores.roster(
            world.boot_id, most=world.schedule.most, receipts=100, retention=world.retention
        )
        self.links: dict[Wire, Connection] = {}
        self.executions = Executions(world, self, handed)
        self._effects: deque[do.Effect] = deque()
        self._working = False
        self.leaving = self.quitting = False
        self._then: Callable[[], None] | None = None  # what is to be done when no run is left
        self.papers = Papers(self, world.disk, world.judge.synced)

    def begin(self) -> None:
        """Take over what was left."""
        self._carry_out(self.roster.load(self.papers.load(), self._now, self._wall))
        self.rearm()

    def stood_still(self, seconds: float) -> None:
        """Judge nobody by a time in which this process heard nothing."""
        if seconds > LATE:
            for connection in self.links.values():
                connection.heard = self._now

    def leave(self, then: Callable[[], None]) -> None:
        """Say bye to all, have the disk do what it has been given, and end."""
        self.leaving = True
        self.roster.leave()
        for connection in list(self.links.values()):
            self.dismiss(connection, "the server is leaving")
        self._world.disk.flush()
        then()

    def quit(self, then: Callable[[], None]) -> None:
        """Stop all runs, at a second call by SIGKILL, and leave when none is left."""
        self.quitting, self._then = True, then
        self._carry_out(self.roster.end_all(self._now))

    def upgrade(self, then: Callable[[], None], tries: int = 100) -> None:
        """Leave when no launch is under way."""
        if self.quitting or self.leaving:
            return
        if self.starting and tries:
            self.soon(0.05, self.upgrade, then, tries - 1)
        else:
            self.leave(then)

    @property
    def starting(self) -> bool:
        """Whether any run is being launched."""
        return any(not process.told for process in self.executions.processes.values())

    def hold(self, name: str, on: bool) -> None:  # noqa: FBT001
        """Hear an administrator on the host of the application's manager."""
        charge = self.roster.charges.get(name)
        if charge is not None:
            self._carry_out(self.roster.greet(name, charge.manager, "", self._now))
            self._carry_out(self.roster.hold(name, m.Hold(1, name, on), self._now))
            self._carry_out(self.roster.lost(name, self._now))

    def unhealthy(self, name: str) -> None:
        """Hear that the checks of an application failed."""
        charge = self.roster.charges.get(name)
        if charge is not None and charge.run.ready:
            self.happened(charge.run_id, Event.UNHEALTHY, detail="3 checks failed")

    # ---- links ---------------------------------------------------------------------------------------------

    def accept(self, wire: Wire, manager: str, number: int) -> None:
        """Take a connection, of manager `number`, whose certificate says `manager`."""
        self.links[wire] = Connection(wire, manager, number, self._now)

    def arrived(self, wire: Wire, data: bytes) -> None:
        """Take bytes, now or when this process goes on."""
        self.event(self._read, wire, data)

    def broken(self, wire: Wire, reason: str) -> None:
        """Take note that a link is gone."""
        self.event(self._lose, wire, reason)

    def _read(self, wire: Wire, data: bytes) -> None:
        connection = self.links.get(wire)
        if connection is None:
            return
        connection.heard = self._now
        self._carry_out(self.roster.heard(connection))
        self._note_heard(connection)
        for message in connection.session.receive(data):
            self._trace(connection, "hears from", message)
            self._carry_out(self._hear(connection, message))
            self._note_heard(connection)
            if wire not in self.links:
                return

    def _note_heard(self, connection: Connection) -> None:
        charge = self.roster.mine(connection)
        if charge is not None:
            self._world.judge.heard(charge.run_id, connection.wire)

    def _hear(self, connection: Connection, message: m.Message | m.Unrecognized) -> Iterable[do.Effect]:
        roster, now = self.roster, self._now
        match message:
            case m.Launch():
                connection.launch = message
                return roster.launch(connection, message, now, self._wall)
            case m.Stop():
                return roster.stop(connection, message, now)
            case m.Detach():
                if (charge := roster.mine(connection)) is not None:
                    self._world.judge.asked_to_leave(charge.run_id)
                return roster.detach(connection, message, now)
            case m.Acknowledge():
                self._world.judge.acknowledged(message.run_id)
                return roster.acknowledge(connection, message, self._wall)
            case m.Hello():
                connection.silence = message.silence
                self._carry_out(roster.greet(connection, connection.manager, message.instance, now))
                self._say(connection, m.Welcome(message.id, 1, boot_id=self._world.boot_id))
            case m.Poll():
                self._say(connection, connection.report(message, self.roster.mine(connection)))
            case m.Bye():
                self._lose(connection.wire, "said bye")
        return ()

    def _trace(self, connection: Connection, what: str, message: m.Message | m.Unrecognized) -> None:
        self._world.trace(lambda: f"server {what} manager {connection.number}: {words(message)}")

    def _say(self, connection: Connection, message: m.Message) -> None:
        if connection.wire not in self.links or connection.session.state is Said.CLOSED:
            return
        line = connection.session.send(message)
        self._trace(connection, "says to", message)
        self._world.judge.said(message)
        if isinstance(message, m.Launched):
            self._world.judge.bound(message.run_id, connection.heard + self._world.booted)
        connection.wire.say("manager", line)

    def _lose(self, wire: Wire, reason: str) -> None:
        connection = self.links.pop(wire, None)
        if connection is None:
            return
        self._world.trace(lambda: f"server loses manager {connection.number}: {reason}")
        wire.close("manager")
        self._carry_out(self.roster.lost(connection, self._now))

    def dismiss(self, connection: Connection, reason: str) -> None:
        """Say why, and hang up."""
        self._say(connection, m.Bye(reason))
        self._lose(connection.wire, f"dismissed: {reason}")

    # ---- the clock -----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """Return when something is due."""
        times = [
            connection.heard + connection.silence + 0.001
            for connection in self.links.values()
            if connection.silence is not None
        ]
        if self.roster.deadline is not None:
            times.append(self.roster.deadline)
        return self._world.booted + min(times) + ULP if times else None

    def tick(self) -> None:
        """Look at the clock."""
        now = self._now
        for connection in list(self.links.values()):
            if connection.silence is not None and now - connection.heard > connection.silence:
                self.dismiss(connection, "nothing was heard of you")
        self._carry_out(self.roster.clock(now, self._wall))

    @property
    def _now(self) -> float:
        return self._world.timeline.now - self._world.booted

    @property
    def _wall(self) -> float:
        return self._world.wall

    # ---- effects -------------------------------------------------------------------------------------------

    def _carry_out(self, effects: Iterable[do.Effect]) -> None:
        self._effects.extend(effects)
        if self._working:
            return
        self._working = True
        try:
            while self._effects:
                self._do(self._effects.popleft())
        finally:
            self._working = False
        if self._then is not None and not self.roster.charges:
            then, self._then = self._then, None
            self.leave(then)

    def _do(self, effect: do.Effect) -> None:
        carry_out = self._DO.get(type(effect))
        if carry_out is not None:
            carry_out(self, effect)

    def _spawn(self, effect: do.Spawn) -> None:
        launch = effect.launch
        charge = self.roster.charge(launch.run_id)
        link = None if charge is None else charge.link
        self._world.judge.spawned(launch, link.number if isinstance(link, Connection) else 0)
        process = self.executions.prepare(launch.run_id)
        if process is None:
            code, now, wall = m.Refusal.RESOURCES, self._now, self._wall
            self._carry_out(self.roster.unprepared(launch.run_id, code, "no process", now, wall))
        else:
            self._carry_out(self.roster.prepared(launch.run_id, process.pid, process.start))

    def _begin(self, effect: do.Begin) -> None:
        process = self.executions.processes.get(effect.run_id)

        def done(error: OSError | None) -> None:
            if self.executions.processes.get(effect.run_id) is process:
                self.happened(effect.run_id, Event.RECORDED if error is None else Event.NOT_RECORDED)

        self.papers.begin(effect.run_id, effect.entries, done)

    def _write(self, effect: do.Write) -> None:
        self._world.trace(lambda: f"server writes of {self._world.called(effect.run_id)}: {effect.entry}")
        self._world.judge.noted(effect.run_id, effect.entry)
        self.papers.add(effect.run_id, effect.entry, sync=effect.sync)

    def _act(self, effect: do.Do) -> None:
        self.executions.do(effect.run_id, effect.action)

    def _settle(self, effect: do.Settle) -> None:
        self.papers.settle(effect.run_id)

    def _log(self, effect: do.Log) -> None:
        self._world.trace(lambda: f"server logs: {effect.text}")

    def _forget(self, effect: do.Forget) -> None:
        self._world.judge.forgotten(effect.run_id)
        self.papers.forget(effect.run_id)

    def _adopt(self, effect: do.Adopt) -> None:
        process = self.executions.adopt(effect.run_id, effect.pid, effect.start)
        if process is None:
            unknown = Unknown("it ended while no server watched it")
            self.happened(effect.run_id, Event.LEADER_ENDED, outcome=unknown)
        elif process.alive:
            self._carry_out(self.roster.adopted(effect.run_id))

    def happened(self, run_id: str, event: Event, **details: Any) -> None:
        """Report an event of a run to the roster."""
        self._world.trace(lambda: f"server notes of {self._world.called(run_id)}: {event.value} {details or ''}")
        self._carry_out(self.roster.happened(run_id, event, self._now, self._wall, **details))

    def _tell(self, effect: do.Say) -> None:
        if isinstance(effect.link, Connection):
            self._say(effect.link, effect.message)

    def _hang_up(self, effect: do.Dismiss) -> None:
        if isinstance(effect.link, Connection):
            self.dismiss(effect.link, effect.reason)

    _DO: ClassVar[dict[type, Callable[[Server, Any], None]]] = {
        do.Say: _tell,
        do.Dismiss: _hang_up,
        do.Spawn: _spawn,
        do.Begin: _begin,
        do.Do: _act,
        do.Write: _write,
        do.Settle: _settle,
        do.Forget: _forget,
        do.Adopt: _adopt,
        do.Log: _log,
    }
