"""One end of a link: what its role may say and hear in each state, and that requests and answers match."""

from __future__ import annotations

from itertools import product

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Receipt
from cmapp.core.session import ANSWERS, TABLE, UNANSWERED_LIMIT, Event, Role, Session, State
from cmapp.core.wire import encode
from cmapp.errors import LocalProtocolError, RemoteProtocolError

RUN = "01234567-89ab-cdef-0123-456789abcdef"
RECEIPT = Receipt(name="web", run_id=RUN, outcome=Exited(0), reason=Reason.ITSELF, started=0, ended=0, lasted=0)
REPORT = m.RunReport("web", RUN, m.Phase.RUNNING)
MANAGER_SAYS = {Event(word) for word in m.FROM_MANAGER} | {Event.UNRECOGNIZED}
SERVER_SAYS = set(Event) - MANAGER_SAYS | {Event.BYE}
ASKED = {  # what must have been asked for a server to say it
    Event.WELCOME: Event.HELLO,
    Event.HELLO_REFUSED: Event.HELLO,
    Event.LAUNCHED: Event.LAUNCH,
    Event.LAUNCH_REFUSED: Event.LAUNCH,
    Event.REPORT: Event.POLL,
    Event.REFUSED: Event.POLL,
    Event.DONE: Event.STOP,
    Event.DETACHED: Event.DETACH,
    Event.RUNS: Event.STATUS,
}


def message_of(event: Event, number: int) -> m.Message:
    """Return what is said for the event; a request or an answer under that id."""
    messages: dict[Event, m.Message] = {
        Event.HELLO: m.Hello(number, m.VERSIONS),
        Event.LAUNCH: m.Launch(number, "web", RUN, ("web",)),
        Event.POLL: m.Poll(number),
        Event.STOP: m.Stop(number),
        Event.DETACH: m.Detach(number),
        Event.HOLD: m.Hold(number, "web"),
        Event.ACKNOWLEDGE: m.Acknowledge(number, RUN),
        Event.STATUS: m.Status(number),
        Event.TAIL: m.Tail(number),
        Event.WELCOME: m.Welcome(number, 1),
        Event.LAUNCHED: m.Launched(number, RUN, 42),
        Event.READY: m.Ready(RUN),
        Event.REPORT: m.Report(number, REPORT),
        Event.OUTPUT: m.Output(m.Stream.STDERR, 0, b"x"),
        Event.EXITED: m.Exited(RECEIPT),
        Event.DONE: m.Done(number),
        Event.DETACHED: m.Done(number),
        Event.RUNS: m.Runs(number),
        Event.REFUSED: m.Refused("no-run", "there is none", id=number),
        Event.HELLO_REFUSED: m.Refused("version", "too old", id=number),
        Event.LAUNCH_REFUSED: m.Refused("capacity", "full", id=number),
        Event.BYE: m.Bye("enough"),
    }
    return messages[event]


def line_of(event: Event, number: int) -> bytes:
    """Return the line that is said for the event."""
    if event is Event.UNRECOGNIZED:
        return b'{"type":"sing","id":%d}\n' % number
    return encode(message_of(event, number))


def hear(session: Session, data: bytes) -> list[m.Message | m.Unrecognized]:
    """Have the session hear all of `data`."""
    return list(session.receive(data))


def session_in(role: Role, state: State, **asked: int) -> Session:
    """Return a session in that state, with these requests, by word, unanswered under these ids."""
    session = Session(role)
    session.state = state
    session._unanswered = {number: word for word, number in asked.items()}
    return session


def says(role: Role, event: Event) -> bool:
    """Tell whether the role is the one that says it; what is not known is only heard."""
    return event in (MANAGER_SAYS if role is Role.MANAGER else SERVER_SAYS) - {Event.UNRECOGNIZED}


def seen(session: Session) -> tuple[State, dict[int, str]]:
    """Return all that a session remembers."""
    return session.state, dict(session._unanswered)


def asked_for(event: Event) -> dict[str, int]:
    """Return what must have been asked for the event to be an answer to it."""
    return {ASKED[event].value: 7} if event in ASKED else {}


def named(value: Role | State | Event) -> str:
    """Return what a part of a case is called."""
    return str(value.value)


PAIRS = list(product(State, Event))
SAID = [(role, *pair) for role in Role for pair in PAIRS if says(role, pair[1])]
HEARD = [
    (role, *pair)
    for role in Role
    for pair in PAIRS
    if pair[0] is not State.CLOSED and (pair[1] is Event.BYE or not says(role, pair[1]))
]
roles = pytest.mark.parametrize("role", Role, ids=named)


@pytest.mark.parametrize(("role", "state", "event"), SAID, ids=named)
def test_says_what_the_table_allows(role: Role, state: State, event: Event) -> None:
    """What the table has is said and moves the state; all else is our own error, and changes nothing."""
    session = session_in(role, state, **asked_for(event))
    before, following = seen(session), TABLE[state, event]
    if following is None:
        with pytest.raises(LocalProtocolError) as error:
            session.send(message_of(event, 7))
        assert str(error.value) == f"a {event.value} is not for a link that is {state.value}"
        assert seen(session) == before
    else:
        assert session.send(message_of(event, 7)) == line_of(event, 7)
        assert session.state is following


@pytest.mark.parametrize(("role", "state", "event"), HEARD, ids=named)
def test_hears_what_the_table_allows(role: Role, state: State, event: Event) -> None:
    """What the table has is heard and moves the state; all else is the peer's error."""
    session = session_in(role, state, **asked_for(event))
    following = TABLE[state, event]
    unknown = event is Event.UNRECOGNIZED
    if following is None:
        with pytest.raises(RemoteProtocolError) as error:
            hear(session, line_of(event, 7))
        word = "sing" if unknown else event.value
        assert str(error.value) == f"a {word} is not for a link that is {state.value}"
    else:
        message = m.Unrecognized("sing", 7) if unknown else message_of(event, 7)
        assert hear(session, line_of(event, 7)) == [message]
        assert session.state is following


OTHERS = [(role, event) for role in Role for event in set(Event) - {Event.UNRECOGNIZED} if not says(role, event)]


@pytest.mark.parametrize(("role", "event"), sorted(OTHERS, key=repr), ids=named)
def test_each_role_says_its_own(role: Role, event: Event) -> None:
    """A manager does not say what is the server's to say, nor the other way round."""
    message = message_of(event, 7)
    with pytest.raises(LocalProtocolError, match=f"^a {role.value} does not say {message.word}$"):
        session_in(role, State.WATCHING, poll=7).send(message)


def test_what_the_other_role_should_say_is_not_recognized() -> None:
    """A peer in the wrong role says words that its side of the protocol does not have."""
    manager, server = session_in(Role.MANAGER, State.OPEN), session_in(Role.SERVER, State.OPEN)
    assert hear(server, line_of(Event.EXITED, 0)) == [m.Unrecognized("exited")]
    assert hear(manager, line_of(Event.POLL, 7)) == [m.Unrecognized("poll", 7)]


# ---- requests and answers ----------------------------------------------------------------------------------

ANSWERING = [Event.WELCOME, Event.LAUNCHED, Event.REPORT, Event.DONE, Event.RUNS]


MISMATCHES = [
    (word, message)
    for word in ANSWERS
    for message in (message_of(event, 7) for event in ANSWERING)
    if type(message) is not ANSWERS[word]
]


@roles
@pytest.mark.parametrize(("word", "message"), MISMATCHES, ids=lambda case: getattr(case, "word", case))
def test_answer_is_of_the_kind_that_was_asked_for(role: Role, word: str, message: m.Message) -> None:
    """A request is answered by its own kind of answer, and by no other."""
    session = session_in(role, State.WATCHING, **{word: 7})
    with pytest.raises((LocalProtocolError, RemoteProtocolError), match=r"that answers nothing that was asked$"):
        exchange(session, role, message)
    assert seen(session) == (State.WATCHING, {7: word})


def exchange(session: Session, role: Role, message: m.Message) -> None:
    """Say or hear what a server says."""
    if role is Role.SERVER:
        session.send(message)
    else:
        hear(session, encode(message))


@roles
@pytest.mark.parametrize(
    "message",
    [
        *(message_of(event, 8) for event in (*ANSWERING, Event.REFUSED)),
        m.Output(m.Stream.STDERR, 0, b"x", id=8),
        m.Output(m.Stream.STDERR, 0, b"x", id=7),
    ],
    ids=lambda message: f"{message.word} {message.id}",
)
def test_answer_to_nothing_is_refused(role: Role, message: m.Message) -> None:
    """An answer needs a request that waits under its id; output under a poll's is none either."""
    session = session_in(role, State.WATCHING, poll=7)
    with pytest.raises((LocalProtocolError, RemoteProtocolError), match=r"that answers nothing that was asked$"):
        exchange(session, role, message)


@roles
def test_request_is_answered_once(role: Role) -> None:
    """The second answer to one request answers nothing."""
    session = session_in(role, State.WATCHING, poll=7, tail=8)
    exchange(session, role, m.Report(7, REPORT))
    exchange(session, role, m.Output(m.Stream.STDERR, 0, b"x", id=8))
    assert seen(session) == (State.WATCHING, {})
    for answer in (m.Report(7, REPORT), m.Output(m.Stream.STDERR, 0, b"x", id=8)):
        with pytest.raises((LocalProtocolError, RemoteProtocolError), match=r"that answers nothing that was asked$"):
            exchange(session, role, answer)


@roles
@pytest.mark.parametrize("word", sorted(set(ANSWERS) - {"hello", "launch"}))
def test_any_request_can_be_refused(role: Role, word: str) -> None:
    """A refusal answers every kind of request, and leaves the state as it is."""
    session = session_in(role, State.ENDED, **{word: 7})
    exchange(session, role, m.Refused("x", "y", id=7))
    assert seen(session) == (State.ENDED, {})


def ask(session: Session, role: Role, number: int) -> None:
    """Say or hear a request."""
    if role is Role.MANAGER:
        session.send(m.Poll(number))
    else:
        hear(session, encode(m.Poll(number)))


ERRORS = {Role.MANAGER: LocalProtocolError, Role.SERVER: RemoteProtocolError}


@roles
def test_an_id_stands_for_one_request_at_a_time(role: Role) -> None:
    """An id may be used again once its request is answered, and not before."""
    session = session_in(role, State.WATCHING, tail=7)
    with pytest.raises(ERRORS[role], match=r"^a second request with the id 7 while the first waits"):
        ask(session, role, 7)
    assert seen(session) == (State.WATCHING, {7: "tail"})
    exchange(session, role, m.Output(m.Stream.STDERR, 0, b"", id=7))
    ask(session, role, 7)


@roles
def test_requests_at_once_are_bounded(role: Role) -> None:
    """64 requests may wait at once, one more only after an answer."""
    session = session_in(role, State.WATCHING)
    assert UNANSWERED_LIMIT == 64
    for number in range(64):
        ask(session, role, number)
    with pytest.raises(ERRORS[role], match=r"^more than 64 requests at once$"):
        ask(session, role, 64)
    exchange(session, role, m.Report(0, REPORT))
    ask(session, role, 64)


def test_unknown_requests_are_counted_too() -> None:
    """A manager cannot pile up requests of types that we do not know, nor reuse an id for them."""
    session = session_in(Role.SERVER, State.OPEN)
    with pytest.raises(RemoteProtocolError, match=r"^a second request with the id 7 "):
        hear(session, line_of(Event.POLL, 7) + line_of(Event.UNRECOGNIZED, 7))
    for number in range(100, 163):
        hear(session, line_of(Event.UNRECOGNIZED, number))
    with pytest.raises(RemoteProtocolError, match=r"^more than 64 requests at once$"):
        hear(session, line_of(Event.UNRECOGNIZED, 163))


@pytest.mark.parametrize("state", [State.OPEN, State.LAUNCHING, State.WATCHING, State.ENDED], ids=lambda s: s.value)
def test_unknown_request_is_refused_by_name(state: State) -> None:
    """Wherever an unknown request is heard, its refusal may be said, once, and nothing else under its id."""
    session = session_in(Role.SERVER, state)
    assert hear(session, line_of(Event.UNRECOGNIZED, 7)) == [m.Unrecognized("sing", 7)]
    with pytest.raises(LocalProtocolError, match=r"answers nothing"):
        session.send(m.Done(7))
    session.send(m.Refused("unknown-type", "sing is not known", id=7))
    assert seen(session) == (state, {})


def test_unknown_word_of_a_server_waits_for_nothing() -> None:
    """A manager passes by what a newer server says."""
    session = session_in(Role.MANAGER, State.WATCHING, poll=7)
    assert hear(session, line_of(Event.UNRECOGNIZED, 7)) == [m.Unrecognized("sing", 7)]
    assert seen(session) == (State.WATCHING, {7: "poll"})


@roles
def test_nothing_is_heard_after_bye(role: Role) -> None:
    """What follows a `bye` is not even an error, in the same piece or in a later one."""
    session = session_in(role, State.WATCHING)
    after = line_of(Event.BYE, 0) + b"no JSON\n"
    assert hear(session, after) == [m.Bye("enough")]
    assert hear(session, after) == []
    assert session.state is State.CLOSED


@roles
def test_nothing_is_heard_after_our_bye(role: Role) -> None:
    """Who has hung up hears nothing more, and says nothing more but `bye`."""
    session = session_in(role, State.WATCHING)
    session.send(m.Bye())
    assert hear(session, line_of(Event.BYE, 0) + b"no JSON\n") == []
    session.send(m.Bye())
    with pytest.raises(LocalProtocolError, match=r"is not for a link that is closed$"):
        session.send(m.Poll(1) if role is Role.MANAGER else m.Ready(RUN))


def test_too_long_a_message_changes_nothing() -> None:
    """What does not fit a line is not said, and the link goes on."""
    session = session_in(Role.MANAGER, State.OPEN)
    with pytest.raises(LocalProtocolError, match=r"^a launch of \d+ bytes is longer than the 65536"):
        session.send(m.Launch(1, "web", RUN, ("x" * 30_000,) * 3))
    assert seen(session) == (State.OPEN, {})
    assert session.send(m.Poll(1))
