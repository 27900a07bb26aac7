"""A manager in this world: the production pursuit, session and codec, and as little around them as possible.

What is done here is what host/manager.py does for the pursuit. The invariant: no decision about a run is taken
here, and what is concluded is recorded before it is acknowledged.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from actor import Actor
from words import words

from cmapp.core import messages as m
from cmapp.core.opinion import Opinion
from cmapp.core.outcome import NotStarted, Refused, Unreachable, Verdict
from cmapp.core.pursuit import Action, Event, Patience
from cmapp.core.reading import Word
from cmapp.core.rules import OnExisting
from cmapp.core.session import Role, Session
from cmapp.core.session import State as Said
from cmapp.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from schedule import Task
    from wires import Wire
    from world import World

HELLO_ID, LAUNCH_ID = 1, 2
SILENCE_MARGIN = 5.0
PAUSE = 15.0  # seconds more for a guest that is said to be paused
SLOWEST = 9.0  # seconds that an answer about the guest takes
IGNORANT = 0.2  # how often whoever is asked cannot tell
FOUND = {m.Refusal.NOT_FOUND: False, m.Refusal.NOT_EXECUTABLE: True}


class Manager(Actor):
    """One process of a manager; `verdict` is set when it has ended, `run_id` what it watches."""

    def __init__(self, world: World, task: Task, run_id: str) -> None:
        super().__init__(world.timeline)
        self._world = world
        self.task = task
        self.run_id = run_id
        self.verdict: Verdict | None = None
        self.ended: float | None = None
        self.begun = world.timeline.now
        self.heard = world.timeline.now  # when the server was heard last
        self._others = Random(task.number)  # noqa: S311 - to be repeated, not to be secret
        self.patience = Patience(
            poll_interval=6.0,
            poll_timeout=3.0,
            connect_timeout=12.0,
            stop_timeout=task.stop,
            link_timeout=10.0,
            asks=task.number % 2 == 0,
            pause_timeout=PAUSE,
        )
        self._pursuit = world.cores.pursuit(self.patience, world.dice.random)
        self._session = Session(Role.MANAGER)
        self._requests = LAUNCH_ID
        self._parting = b""
        self.wire: Wire | None = None
        self.attempt: object | None = None
        self.boot_id = ""  # the boot in which it first launched
        self.asked_for = False  # whether it was sent a signal

    def begin(self) -> None:
        """Start."""
        self._step(Event.BEGUN)

    # ---- what happens to it --------------------------------------------------------------------------------

    def connected(self, attempt: object, wire: Wire) -> None:
        """Take a connection that was asked for, unless it was given up."""
        self.event(self._connected, attempt, wire)

    def refused(self, attempt: object, text: str) -> None:
        """Take note that there is nobody to connect to."""
        self.event(self._not_connected, attempt, text)

    def arrived(self, wire: Wire, data: bytes) -> None:
        """Take bytes."""
        self.event(self._read, wire, data)

    def broken(self, wire: Wire, reason: str) -> None:
        """Take note that a link is gone."""
        self.event(self._lost, wire, reason)

    def asked(self, event: Event) -> None:
        """Take a signal: SIGNALED or DISMISSED."""
        self.asked_for = True
        self.event(self._step, event)

    def die(self) -> None:
        """Be killed: the kernel closes its connection."""
        super().die()
        self.ended = self._world.timeline.now
        if self.wire is not None:
            self.wire.close("server")

    def _connected(self, attempt: object, wire: Wire) -> None:
        if attempt is not self.attempt:
            wire.close("server")
            return
        self.attempt, self.wire = None, wire
        self._step(Event.CONNECTED)

    def _not_connected(self, attempt: object, text: str) -> None:
        if attempt is self.attempt:
            self.attempt = None
            self._step(Event.LINK_LOST, Unreachable(text))

    def _lost(self, wire: Wire, reason: str) -> None:
        if wire is self.wire:
            self._step(Event.LINK_LOST, Unreachable(reason))

    def _read(self, wire: Wire, data: bytes) -> None:
        if wire is not self.wire:
            return
        for message in self._session.receive(data):
            self._world.trace(self._in_words("hears", message))
            self._hear(message)
            if self.wire is not wire:
                return

    def _hear(self, message: m.Message | m.Unrecognized) -> None:
        if not isinstance(message, (m.Welcome, m.Bye)):
            self.heard = self._world.timeline.now
        match message:
            case m.Welcome():
                self._pursuit.meet(message.boot_id)
                self._step(Event.WELCOMED)
            case m.Launched():
                self._launched(message)
            case m.Report(run=run):
                self._check_run(run.run_id)
                self._pursuit.held = run.held
                self._step(Event.REPORTED)
            case m.Exited(receipt=receipt):
                self._check_run(receipt.run_id)
                self._step(Event.EXITED, receipt)
            case m.Done() if self._asked.pop(message.id, "") == m.Detach.word:
                self._world.judge.left(self)
                self._step(Event.DETACHED)
            case m.Refused():
                self._refused(message)
            case m.Bye(reason=reason):
                self._step(Event.LINK_LOST, Unreachable(f"hung up: {reason}"))

    def _launched(self, launched: m.Launched) -> None:
        if self.task.existing is OnExisting.ATTACH and launched.attached and not self._pursuit.resume:
            self.run_id = launched.run_id
        self._check_run(launched.run_id)
        self._step(Event.LAUNCHED)

    def _in_words(self, what: str, message: m.Message | m.Unrecognized) -> Callable[[], str]:
        return lambda: f"manager {self.task.number} {what}: {words(message)}"

    def _check_run(self, run_id: str) -> None:
        if run_id != self.run_id:
            raise RemoteProtocolError(f"something about {self._world.called(run_id)}, which is not ours")

    def _refused(self, refused: m.Refused) -> None:
        verdict = Refused(refused.code, refused.text)
        word = self._asked.pop(refused.id, "")
        if word == m.Launch.word and refused.code in FOUND:
            self._step(Event.NOT_STARTED, NotStarted(FOUND[refused.code], refused.text))
        elif word in (m.Hello.word, m.Launch.word, m.Detach.word):
            self._step(Event.REFUSED, verdict)
        else:
            self._step(Event.DENIED, verdict)

    # ---- the clock -----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """Return when something is due."""
        return self._pursuit.deadline

    def tick(self) -> None:
        """Look at the clock."""
        self._carry_out(self._pursuit.clock(self._world.timeline.now))

    def _answered(self, opinion: Opinion) -> None:
        self._world.trace(lambda: f"manager {self.task.number} is told of the guest: {opinion.text}")
        self._carry_out(self._pursuit.opine(opinion, self._world.timeline.now))

    # ---- what is to be done --------------------------------------------------------------------------------

    def _step(self, event: Event, because: Verdict | None = None) -> None:
        self._world.trace(lambda: f"manager {self.task.number} steps: {event.value}")
        self._carry_out(self._pursuit.step(event, self._world.timeline.now, because))

    def _carry_out(self, actions: tuple[Action, ...]) -> None:
        verdict = self._pursuit.verdict
        if Action.CONCLUDE in actions and verdict is not None:
            self._world.trace(lambda: f"manager {self.task.number} concludes: {words(verdict)}")
            self.verdict = verdict
            self._world.judge.concluded(self, verdict)
        for action in actions:
            self._do(action)
        if Action.CONCLUDE in actions:
            self.die()

    def _do(self, action: Action) -> None:
        match action:
            case Action.CONNECT:
                self._session = Session(Role.MANAGER)
                self._asked: dict[int, str] = {}
                self.attempt = object()
                self._world.connect(self, self.attempt)
            case Action.SAY_HELLO:
                silence = self.patience.silence + SILENCE_MARGIN
                instance = f"{self.task.number}"
                self._say(m.Hello(HELLO_ID, m.VERSIONS, silence=silence, instance=instance))
            case Action.LAUNCH:
                self.boot_id = self.boot_id or self._world.boot_id
                self._say(self._world.launch(self.task, self.run_id, LAUNCH_ID, resume=self._pursuit.resume))
            case Action.POLL:
                self._say(m.Poll(self._next_id()))
            case Action.STOP | Action.KILL:
                self._say(m.Stop(self._next_id(), kill=action is Action.KILL))
            case Action.DETACH:
                self._say(m.Detach(self._next_id()))
            case Action.ASK:
                word = Word.UNKNOWN if self._others.random() < IGNORANT else self._world.seen_from_outside
                self.soon(self._others.uniform(0.1, SLOWEST), self._answered, Opinion(word, word.value))
            case Action.ACKNOWLEDGE:
                self._parting = self._session.send(m.Acknowledge(self._next_id(), self.run_id))
            case Action.HANG_UP:
                self._hang_up()

    def _next_id(self) -> int:
        self._requests += 1
        return self._requests

    def _say(self, message: m.Request) -> None:
        if self.wire is not None:
            self._asked[message.id] = message.word
            self._world.trace(self._in_words("says", message))
            self.wire.say("server", self._session.send(message))

    def _hang_up(self) -> None:
        wire, self.wire, self.attempt = self.wire, None, None
        if wire is None:
            return
        if self._session.state not in (Said.NEW, Said.CLOSED):
            wire.say("server", self._parting + self._session.send(m.Bye()))
        wire.close("server")
