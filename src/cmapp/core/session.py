"""Who may say what when on one link, both roles: one table.

Both ends run this same machine over the same messages, each in the order in which it sends and receives them.
Messages cross on the way: a manager may poll or stop a run whose end is already under way to it. So what may
cross is legal on both sides of the crossing, and the two machines agree whenever the link is quiet. What the
table does not have is an error: ours (LocalProtocolError, nothing is sent) or the peer's (RemoteProtocolError,
the link ends).

A reply is an event of its own where it changes the state, so the table needs no conditions: `refused` is
HELLO_REFUSED, LAUNCH_REFUSED or REFUSED by the request that it answers, `done` is DETACHED for a detach. A link
serves one run: once that has ended, or is left to another manager, nothing is launched on it any more.
The invariant: every request is answered at most once, under its id, by a message of the right kind.
"""

from __future__ import annotations

import enum

from cmapp.core import messages as m
from cmapp.core.wire import Decoder, encode
from cmapp.errors import LocalProtocolError, ProtocolError, RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

UNANSWERED_LIMIT = 64  # requests that may wait for their answers at once


class Role(enum.Enum):
    """Which end of the link we are."""

    MANAGER = "manager"
    SERVER = "server"


class State(enum.Enum):
    """How far the two have come."""

    NEW = "new"
    GREETING = "greeting"
    OPEN = "open"
    LAUNCHING = "launching"
    WATCHING = "watching"
    ENDED = "ended"
    CLOSED = "closed"


class Event(enum.Enum):
    """What was said, by either."""

    HELLO = "hello"
    LAUNCH = "launch"
    POLL = "poll"
    STOP = "stop"
    DETACH = "detach"
    HOLD = "hold"
    ACKNOWLEDGE = "acknowledge"
    STATUS = "status"
    TAIL = "tail"
    WELCOME = "welcome"
    LAUNCHED = "launched"
    READY = "ready"
    REPORT = "report"
    OUTPUT = "output"
    EXITED = "exited"
    DONE = "done"
    DETACHED = "detached"
    RUNS = "runs"
    REFUSED = "refused"
    HELLO_REFUSED = "hello refused"
    LAUNCH_REFUSED = "launch refused"
    UNRECOGNIZED = "unrecognized"
    BYE = "bye"


def _table() -> dict[tuple[State, Event], State | None]:
    """Write the table out: None is what must not be said."""
    s, e = State, Event
    table: dict[tuple[State, Event], State | None] = {(state, event): None for state in s for event in e}
    table |= {(state, e.BYE): s.CLOSED for state in s}
    table |= {
        (s.NEW, e.HELLO): s.GREETING,
        (s.GREETING, e.WELCOME): s.OPEN,
        (s.GREETING, e.HELLO_REFUSED): s.CLOSED,
        (s.OPEN, e.LAUNCH): s.LAUNCHING,
        (s.LAUNCHING, e.LAUNCHED): s.WATCHING,
        (s.LAUNCHING, e.LAUNCH_REFUSED): s.OPEN,
        (s.WATCHING, e.EXITED): s.ENDED,
        (s.WATCHING, e.DETACHED): s.ENDED,
    }
    answers = (e.REPORT, e.DONE, e.RUNS, e.REFUSED)
    same: dict[State, tuple[Event, ...]] = {
        # Polls and stops may cross with the refusal of the launch that they follow.
        s.OPEN: (e.POLL, e.STOP, e.ACKNOWLEDGE, e.HOLD, e.STATUS, *answers),
        s.LAUNCHING: (e.POLL, e.STOP, e.STATUS, *answers),
        s.WATCHING: (e.POLL, e.STOP, e.DETACH, e.STATUS, e.TAIL, e.READY, e.OUTPUT, *answers),
        # All that a manager may say of a living run may cross with its end, or with the answer to a detach.
        s.ENDED: (e.POLL, e.STOP, e.DETACH, e.ACKNOWLEDGE, e.HOLD, e.STATUS, e.TAIL, e.OUTPUT, e.DETACHED, *answers),
    }
    return table | {(state, event): state for state, events in same.items() for event in (*events, e.UNRECOGNIZED)}


TABLE = _table()

ANSWERS: dict[str, type[m.Message]] = {
    m.Hello.word: m.Welcome,
    m.Launch.word: m.Launched,
    m.Poll.word: m.Report,
    m.Stop.word: m.Done,
    m.Detach.word: m.Done,
    m.Hold.word: m.Done,
    m.Acknowledge.word: m.Done,
    m.Status.word: m.Runs,
    m.Tail.word: m.Output,
}
_SPECIAL = {
    (m.Hello.word, m.Refused.word): Event.HELLO_REFUSED,
    (m.Launch.word, m.Refused.word): Event.LAUNCH_REFUSED,
    (m.Detach.word, m.Done.word): Event.DETACHED,
}
_EVENTS = {event.value: event for event in Event}
_UNKNOWN_REQUEST = ""  # what an unrecognized request is remembered as: only a refusal answers it


class Session:
    """One end's view of one link: turns messages to bytes and back, and holds both ends to the table."""

    __slots__ = ("_decoder", "_role", "_unanswered", "state")

    def __init__(self, role: Role) -> None:
        self.state = State.NEW
        self._role = role
        self._decoder = Decoder(m.FROM_SERVER if role is Role.MANAGER else m.FROM_MANAGER)
        self._unanswered: dict[int, str] = {}

    def send(self, message: m.Message) -> bytes:
        """Return the bytes that say `message`; raises LocalProtocolError, with nothing changed, if we must not."""
        ours = m.FROM_MANAGER if self._role is Role.MANAGER else m.FROM_SERVER
        if type(message) not in ours.values():
            raise LocalProtocolError(f"a {self._role.value} does not say {message.word}")
        line = encode(message)
        self._advance(message, LocalProtocolError)
        return line

    def receive(self, data: bytes) -> Iterator[m.Message | m.Unrecognized]:
        """Yield what `data` completes, in order; raises RemoteProtocolError at what the peer must not say.

        Each is to be answered before the next is taken: a `bye` may follow it, or an error, and what came before
        either still counts. Nothing is heard after a `bye`. An unrecognized request wants a `refused` under its id.
        """
        messages = self._decoder.feed(data)
        while self.state is not State.CLOSED and (message := next(messages, None)) is not None:
            if isinstance(message, m.Message):
                self._advance(message, RemoteProtocolError)
            elif TABLE[self.state, Event.UNRECOGNIZED] is None:
                raise RemoteProtocolError(f"a {message.type} is not for a link that is {self.state.value}")
            elif message.id is not None and self._role is Role.SERVER:
                self._remember(message.id, _UNKNOWN_REQUEST, RemoteProtocolError)
            yield message

    def _advance(self, message: m.Message, error: type[ProtocolError]) -> None:
        asked = None
        number: int | None = getattr(message, "id", None)
        if number is not None and not isinstance(message, m.Request):
            asked = self._unanswered.get(number)
            if asked is None or (type(message) is not m.Refused and ANSWERS.get(asked) is not type(message)):
                raise error(f"a {message.word} that answers nothing that was asked")
        event = _SPECIAL.get((asked or "", message.word)) or _EVENTS[message.word]
        state = TABLE[self.state, event]
        if state is None:
            raise error(f"a {event.value} is not for a link that is {self.state.value}")
        if isinstance(message, m.Request):
            self._remember(message.id, message.word, error)
        elif number is not None:
            del self._unanswered[number]
        self.state = state

    def _remember(self, number: int, word: str, error: type[ProtocolError]) -> None:
        if number in self._unanswered:
            raise error(f"a second request with the id {number} while the first waits for its answer")
        if len(self._unanswered) >= UNANSWERED_LIMIT:
            raise error(f"more than {UNANSWERED_LIMIT} requests at once")
        self._unanswered[number] = word


def agree(versions: tuple[int, ...]) -> int | None:
    """Return the newest version that both a manager's `versions` and ours have, or None."""
    return max(set(versions) & set(m.VERSIONS), default=None)
