"""Two sessions joined by a link that delays, splits and cuts: they never blame each other.

Each end says whatever its own session allows at that moment, and does not know what is under way to it. That a
single pair of crossing messages does no harm is proven for every state of the table; that no longer
conversation does either is searched for by hypothesis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Receipt
from cmapp.core.session import ANSWERS, TABLE, Event, Role, Session, State
from cmapp.core.wire import encode
from cmapp.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = "01234567-89ab-cdef-0123-456789abcdef"
RECEIPT = Receipt(name="web", run_id=RUN, outcome=Exited(0), reason=Reason.ITSELF, started=0, ended=0, lasted=0)
REPORT = m.RunReport("web", RUN, m.Phase.RUNNING)

REQUESTS: dict[str, Callable[[int], m.Request]] = {
    "hello": lambda number: m.Hello(number, m.VERSIONS),
    "launch": lambda number: m.Launch(number, "web", RUN, ("web",)),
    "poll": m.Poll,
    "stop": m.Stop,
    "detach": m.Detach,
    "hold": lambda number: m.Hold(number, "web"),
    "acknowledge": lambda number: m.Acknowledge(number, RUN),
    "status": m.Status,
    "tail": m.Tail,
}
REPLIES: dict[type[m.Message], Callable[[int], m.Message]] = {
    m.Welcome: lambda number: m.Welcome(number, 1),
    m.Launched: lambda number: m.Launched(number, RUN, 42),
    m.Report: lambda number: m.Report(number, REPORT),
    m.Done: m.Done,
    m.Runs: m.Runs,
    m.Output: lambda number: m.Output(m.Stream.STDERR, 0, b"x", id=number),
    m.Refused: lambda number: m.Refused("no-run", "there is none", id=number),
}
PUSHES: list[m.Message] = [m.Output(m.Stream.STDOUT, 0, b"x"), m.Ready(RUN), m.Exited(RECEIPT)]


# ---- one pair ----------------------------------------------------------------------------------------------

MANAGER_SAYS = [Event(word) for word in m.FROM_MANAGER]
SERVER_SAYS = [event for event in Event if event not in MANAGER_SAYS and event is not Event.UNRECOGNIZED]
SQUARES = [
    (state, ours, theirs)
    for state in State
    for ours in MANAGER_SAYS
    for theirs in [*SERVER_SAYS, Event.BYE]
    if TABLE[state, ours] is not None and TABLE[state, theirs] is not None
]


def follow(state: State, *events: Event) -> State | None:
    """Return where the table leads; nothing is said or heard after a `bye`."""
    for event in events:
        following = TABLE[state, event] if state is not State.CLOSED else state
        if following is None:
            return None
        state = following
    return state


@pytest.mark.parametrize(
    ("state", "ours", "theirs"), SQUARES, ids=["-".join(part.value for part in square) for square in SQUARES]
)
def test_crossing_messages_commute(state: State, ours: Event, theirs: Event) -> None:
    """Whichever of two crossing messages counts first, both are legal and lead to the same state.

    A tail that crossed the answer to a detach, or a second detach, once was illegal where it arrived.
    """
    answers_it = {Event.WELCOME, Event.HELLO_REFUSED} if ours is Event.HELLO else set()
    assert theirs not in answers_it
    first, second = follow(state, ours, theirs), follow(state, theirs, ours)
    assert first is not None
    assert first is second


def test_every_state_has_crossings() -> None:
    """The proof leaves out no state in which both ends may speak."""
    assert {state for state, *_ in SQUARES} == set(State)


# ---- in turns ----------------------------------------------------------------------------------------------


def test_a_life_from_hello_to_bye() -> None:
    """Two ends that take turns go through the states together, and each hears what the other said."""
    manager, server = Session(Role.MANAGER), Session(Role.SERVER)
    life: list[tuple[Session, m.Message, State]] = [
        (manager, m.Hello(1, m.VERSIONS), State.GREETING),
        (server, m.Welcome(1, 1), State.OPEN),
        (manager, m.Launch(1, "web", RUN, ("web",)), State.LAUNCHING),
        (server, m.Refused("capacity", "full", id=1), State.OPEN),
        (manager, m.Launch(2, "web", RUN, ("web",)), State.LAUNCHING),
        (manager, m.Poll(3), State.LAUNCHING),
        (server, m.Launched(2, RUN, 42), State.WATCHING),
        (server, m.Report(3, REPORT), State.WATCHING),
        (server, m.Ready(RUN), State.WATCHING),
        (server, m.Output(m.Stream.STDERR, 0, b"x"), State.WATCHING),
        (manager, m.Stop(1), State.WATCHING),
        (server, m.Done(1), State.WATCHING),
        (server, m.Exited(RECEIPT), State.ENDED),
        (manager, m.Acknowledge(1, RUN), State.ENDED),
        (server, m.Done(1), State.ENDED),
        (manager, m.Bye(), State.CLOSED),
    ]
    for speaker, message, state in life:
        listener = server if speaker is manager else manager
        assert list(listener.receive(speaker.send(message))) == [message]
        assert (manager.state, server.state) == (state, state)


def watching() -> tuple[Session, Session]:
    """Return a manager and a server that watch a run."""
    manager, server = Session(Role.MANAGER), Session(Role.SERVER)
    for asked, answer in ((REQUESTS["hello"](1), m.Welcome), (REQUESTS["launch"](1), m.Launched)):
        list(server.receive(manager.send(asked)))
        list(manager.receive(server.send(REPLIES[answer](1))))
    return manager, server


def test_request_before_a_bye_can_be_answered() -> None:
    """A request that comes in one piece with a `bye` is answered first; the link once was closed by then."""
    manager, server = watching()
    heard = server.receive(manager.send(m.Poll(7)) + manager.send(m.Bye()))
    assert next(heard) == m.Poll(7)
    assert server.send(m.Report(7, REPORT))
    assert list(heard) == [m.Bye()]


def test_outcome_before_an_error_is_heard() -> None:
    """What must not be said does not take back the outcome that was told before it, in the same piece."""
    manager, server = watching()
    heard = manager.receive(server.send(m.Exited(RECEIPT)) + encode(m.Exited(RECEIPT)))
    assert next(heard) == m.Exited(RECEIPT)
    with pytest.raises(RemoteProtocolError, match=r"^a exited is not for a link that is ended$"):
        next(heard)


# ---- any conversation --------------------------------------------------------------------------------------


PIECES = st.sampled_from([1000, 100, 1])  # bytes that arrive at once: all, most of a line, next to nothing


class Conversation(RuleBasedStateMachine):
    """A manager and a server that say at random what their sessions let them."""

    def __init__(self) -> None:
        """Begin with nothing said."""
        super().__init__()
        self.manager, self.server = Session(Role.MANAGER), Session(Role.SERVER)
        self.to_server, self.to_manager = bytearray(), bytearray()  # what is under way
        self.asked: dict[int, str] = {}  # what the server has to answer
        self.answered: dict[int, int] = {}  # how often the manager heard an answer
        self.number = 0
        self.cut = False

    @initialize(said=st.sampled_from([0, 2, 3, 4, 4, 4]))
    def begin(self, said: int) -> None:
        """Begin anywhere on the way to a run that is watched, where there is most to be said."""
        steps = [("hello", False), ("hello", True), ("launch", False), ("launch", True)]
        for word, answered in steps[:said]:
            if answered:
                self.reply(0, refuse=False)
                self.deliver_to_manager(1000)
            else:
                self.ask(word)
                self.deliver_to_server(1000)

    @precondition(lambda self: self.may_ask())
    @rule(choice=st.data())
    def request(self, choice: st.DataObject) -> None:
        """The manager asks whatever it may ask."""
        self.ask(choice.draw(st.sampled_from(self.may_ask())))

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 63), refuse=st.sampled_from([False, False, True]))
    def answer(self, which: int, *, refuse: bool) -> None:
        """The server answers any of the requests that it heard, with what was asked for or a refusal."""
        self.reply(which, refuse=refuse)

    @precondition(lambda self: self.server.state is State.WATCHING)
    @rule(which=st.integers(0, 9))
    def push(self, which: int) -> None:
        """The server tells what it may tell, the end of the run seldom."""
        self.say(self.server, PUSHES[which // 4], self.to_manager)

    @rule(by_manager=st.booleans(), really=st.integers(0, 19))
    def hang_up(self, *, by_manager: bool, really: int) -> None:
        """Either says `bye`, but seldom, so that there is something to say before."""
        if really == 0 and by_manager:
            self.say(self.manager, m.Bye("enough"), self.to_server)
        elif really == 0:
            self.say(self.server, m.Bye("enough"), self.to_manager)

    @precondition(lambda self: self.to_server)
    @rule(size=PIECES)
    def deliver_to_server(self, size: int) -> None:
        """A piece of what the manager said arrives, cut wherever it is."""
        for message in self.server.receive(self.take(self.to_server, size)):
            if isinstance(message, m.Request):
                self.asked[message.id] = message.word

    @precondition(lambda self: self.to_manager)
    @rule(size=PIECES)
    def deliver_to_manager(self, size: int) -> None:
        """A piece of what the server said arrives, cut wherever it is."""
        for message in self.manager.receive(self.take(self.to_manager, size)):
            number: int | None = getattr(message, "id", None)
            if number is not None:
                self.answered[number] += 1

    @precondition(lambda self: not self.cut)
    @rule(really=st.integers(0, 19), kept=st.integers(0, 100))
    def lose(self, really: int, kept: int) -> None:
        """The link is cut: of what is under way, only the beginnings still arrive."""
        if really == 0:
            self.cut = True
            del self.to_server[kept:], self.to_manager[kept:]

    @invariant()
    def answers_at_most_once(self) -> None:
        """No request is ever answered twice."""
        assert all(count <= 1 for count in self.answered.values())

    @invariant()
    def agree_when_quiet(self) -> None:
        """When nothing is under way, both ends are where the other is, and wait for the same answers."""
        if not self.cut and not self.to_server and not self.to_manager:
            assert self.manager.state is self.server.state
            if self.manager.state is not State.CLOSED:
                assert self.manager._unanswered == self.server._unanswered == self.asked

    def teardown(self) -> None:
        """In the end all that was said arrives, every request can still be answered, and is, exactly once."""
        while self.to_server or self.to_manager or (self.asked and self.server.state is not State.CLOSED):
            self.deliver_to_server(10_000)
            self.deliver_to_manager(10_000)
            for _ in list(self.asked):
                before = len(self.asked)
                self.reply(0, refuse=False)
                if len(self.asked) == before:
                    self.reply(0, refuse=True)
                assert len(self.asked) < before or self.server.state is State.CLOSED or self.cut
            if self.cut:
                break
        self.agree_when_quiet()
        if not self.cut and self.manager.state is not State.CLOSED:
            assert all(count == 1 for count in self.answered.values())

    def may_ask(self) -> list[str]:
        """Return the requests that the manager may make."""
        return [word for word in REQUESTS if TABLE[self.manager.state, Event(word)] is not None]

    def ask(self, word: str) -> None:
        """Have the manager ask under a new id, as long as not too much waits for an answer."""
        if self.say(self.manager, REQUESTS[word](self.number), self.to_server):
            self.answered[self.number] = 0
            self.number += 1

    def reply(self, which: int, *, refuse: bool) -> None:
        """Have the server answer one of the requests that it heard, if it may."""
        number = sorted(self.asked)[which % len(self.asked)]
        kind = m.Refused if refuse else ANSWERS[self.asked[number]]
        if self.say(self.server, REPLIES[kind](number), self.to_manager):
            del self.asked[number]

    def say(self, speaker: Session, message: m.Message, way: bytearray) -> bool:
        """Say the message if the speaker may, and return whether it did."""
        try:
            line = speaker.send(message)
        except LocalProtocolError:
            return False
        if not self.cut:
            way += line
        return True

    @staticmethod
    def take(way: bytearray, size: int) -> bytes:
        """Take the next bytes off the way."""
        piece = bytes(way[:size])
        del way[:size]
        return piece


TestConversation: Any = Conversation.TestCase
TestConversation.settings = settings(max_examples=400, stateful_step_count=40)
