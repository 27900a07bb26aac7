"""The manager's pursuit of one run: connect, launch, poll, conclude: (state, event) -> (state, actions).

Clocks are events: every state names the timers that may run in it, a timer that is due is stepped like any
other event, and leaving the state forgets them. Polls go on while the run is launched, watched and stopped,
so a guest that hangs is noticed within the same bound in each: one poll interval plus one poll timeout.
The invariant: a pursuit ends with exactly one verdict, and it says what is known, never more.
"""

from __future__ import annotations

import enum

from cmapp.core.outcome import Failed, Unreachable, Verdict
from cmapp.core.record import Record
from cmapp.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ATTEMPT_LIMIT = 10.0  # seconds that one attempt to connect and be welcomed may take
RETRY_FIRST, RETRY_LAST = 0.1, 5.0  # seconds between attempts: doubled each time, half of it by chance
KILL_MARGIN = 15.0  # seconds that the server has, past the stop timeout, to kill what is left and say so


class State(enum.Enum):
    """How far the pursuit is."""

    IDLE = "idle"
    CONNECTING = "connecting"
    WAITING = "waiting"
    GREETING = "greeting"
    LAUNCHING = "launching"
    WATCHING = "watching"
    STOPPING = "stopping"
    CONCLUDED = "concluded"


class Event(enum.Enum):
    """What happened; those from RETRY_DUE on come from the clock."""

    BEGUN = "begun"
    CONNECTED = "connected"
    WELCOMED = "welcomed"
    LAUNCHED = "launched"
    NOT_STARTED = "not started"
    REFUSED = "refused"
    REPORTED = "reported"
    EXITED = "exited"
    LINK_LOST = "link lost"
    DENIED = "denied"
    SIGNALED = "signaled"
    BROKEN = "broken"
    RETRY_DUE = "retry due"
    ATTEMPT_LATE = "attempt late"
    LIMIT_PASSED = "limit passed"
    POLL_DUE = "poll due"
    ANSWER_LATE = "answer late"
    STOP_LATE = "stop late"


class Action(enum.Enum):
    """What the shell has to do about it, in this order."""

    CONNECT = "connect"
    HANG_UP = "hang up"
    SAY_HELLO = "say hello"
    LAUNCH = "launch"
    POLL = "poll"
    STOP = "stop"
    KILL = "kill"
    ACKNOWLEDGE = "acknowledge"
    CONCLUDE = "conclude"


def _table() -> dict[tuple[State, Event], tuple[State, tuple[Action, ...]] | None]:
    """Write the table out: None is what cannot happen."""
    s, e, a = State, Event, Action
    end = (s.CONCLUDED, (a.HANG_UP, a.CONCLUDE))
    again = (s.WAITING, (a.HANG_UP,))
    table: dict[tuple[State, Event], tuple[State, tuple[Action, ...]] | None]
    table = {(state, event): None for state in s for event in e}
    table |= {(state, e.BROKEN): end for state in s}
    table |= {(state, e.SIGNALED): end for state in (s.IDLE, s.CONNECTING, s.WAITING, s.GREETING)}
    table |= {(state, e.LIMIT_PASSED): end for state in (s.CONNECTING, s.WAITING, s.GREETING)}
    table |= {(state, e.LINK_LOST): again for state in (s.CONNECTING, s.GREETING)}
    table |= {(state, e.ATTEMPT_LATE): again for state in (s.CONNECTING, s.GREETING)}
    for state in (s.CONNECTING, s.GREETING, s.LAUNCHING, s.WATCHING, s.STOPPING):
        table |= {(state, e.DENIED): end}
    for state in (s.LAUNCHING, s.WATCHING, s.STOPPING):
        table |= {
            (state, e.POLL_DUE): (state, (a.POLL,)),
            (state, e.REPORTED): (state, ()),
            (state, e.ANSWER_LATE): end,
            (state, e.LINK_LOST): end,
        }
    for state in (s.LAUNCHING, s.STOPPING):
        table |= {(state, e.NOT_STARTED): end, (state, e.REFUSED): end}
    for state in (s.WATCHING, s.STOPPING):
        table |= {(state, e.EXITED): (s.CONCLUDED, (a.ACKNOWLEDGE, a.HANG_UP, a.CONCLUDE))}
    table |= {
        (s.IDLE, e.BEGUN): (s.CONNECTING, (a.CONNECT,)),
        (s.WAITING, e.RETRY_DUE): (s.CONNECTING, (a.CONNECT,)),
        (s.CONNECTING, e.CONNECTED): (s.GREETING, (a.SAY_HELLO,)),
        (s.GREETING, e.WELCOMED): (s.LAUNCHING, (a.LAUNCH,)),
        (s.GREETING, e.REFUSED): end,
        (s.LAUNCHING, e.LAUNCHED): (s.WATCHING, ()),
        (s.LAUNCHING, e.SIGNALED): (s.STOPPING, (a.STOP,)),
        (s.WATCHING, e.SIGNALED): (s.STOPPING, (a.STOP,)),
        (s.STOPPING, e.LAUNCHED): (s.STOPPING, ()),
        (s.STOPPING, e.SIGNALED): (s.STOPPING, (a.KILL,)),
        (s.STOPPING, e.STOP_LATE): end,
    }
    table |= {(s.CONCLUDED, event): (s.CONCLUDED, ()) for event in e}
    return table


TABLE = _table()

# The timers that may run in a state; a link's own are forgotten with it.
_SEEKING = frozenset((Event.LIMIT_PASSED,))
_LINKED = frozenset((Event.POLL_DUE, Event.ANSWER_LATE))
TIMERS: dict[State, frozenset[Event]] = {
    State.IDLE: frozenset(),
    State.CONNECTING: _SEEKING | {Event.ATTEMPT_LATE},
    State.WAITING: _SEEKING | {Event.RETRY_DUE},
    State.GREETING: _SEEKING | {Event.ATTEMPT_LATE},
    State.LAUNCHING: _LINKED,
    State.WATCHING: _LINKED,
    State.STOPPING: _LINKED | {Event.STOP_LATE},
    State.CONCLUDED: frozenset(),
}


class Patience(Record):
    """How long a pursuit waits for what, in seconds."""

    poll_interval: float = 5.0
    poll_timeout: float = 10.0
    connect_timeout: float = 60.0
    stop_timeout: float = 30.0

    @property
    def silence(self) -> float:
        """The longest time that a hung guest, or a hung manager, goes unnoticed."""
        return self.poll_interval + self.poll_timeout


class Pursuit:
    """One manager's progress: step it with events, carry out what it returns, call `clock` when `deadline` is due."""

    __slots__ = ("_attempts", "_chance", "_patience", "_timers", "_trouble", "state", "verdict")

    def __init__(self, patience: Patience, chance: Callable[[], float]) -> None:
        """`chance` returns a number from 0 to 1, for the jitter between attempts."""
        self.state = State.IDLE
        self.verdict: Verdict | None = None
        self._patience = patience
        self._chance = chance
        self._attempts = 0
        self._trouble = ""
        self._timers: dict[Event, float] = {}

    @property
    def deadline(self) -> float | None:
        """When the clock has to be looked at next, or None."""
        return min(self._timers.values(), default=None)

    def clock(self, now: float) -> tuple[Action, ...]:
        """Return what to do about the timers that are due, the earliest first."""
        actions: tuple[Action, ...] = ()
        while self._timers:
            event = min(self._timers, key=self._timers.__getitem__)
            if self._timers[event] > now:
                break
            del self._timers[event]
            actions += self.step(event, now)
        return actions

    def step(self, event: Event, now: float, because: Verdict | None = None) -> tuple[Action, ...]:
        """Return what to do about `event` at `now`; raises StateError for what cannot happen.

        `because` is the verdict in case this event ends the pursuit; the clock's events and a signal before the
        launch have their own, which repeats the text of the last `because` of an attempt that failed.
        """
        entry = TABLE[self.state, event]
        if entry is None:
            raise StateError(f"{event.value} for a pursuit that is {self.state.value}")
        state, actions = entry
        if event is Event.LINK_LOST and isinstance(because, Unreachable):
            self._trouble = f": {because.text}"
        if event is Event.ATTEMPT_LATE:
            self._trouble = f": no answer within {ATTEMPT_LIMIT:g} s"
        if state is State.CONCLUDED and self.verdict is None:
            self.verdict = because or self._own_verdict(event)
        if state is not self.state:
            self.state = state
            self._timers = {timer: at for timer, at in self._timers.items() if timer in TIMERS[state]}
            self._enter(state, now)
        self._rearm(event, actions, now)
        return actions

    def _enter(self, state: State, now: float) -> None:
        patience, timers = self._patience, self._timers
        match state:
            case State.CONNECTING:
                timers.setdefault(Event.LIMIT_PASSED, now + patience.connect_timeout)
                timers[Event.ATTEMPT_LATE] = now + ATTEMPT_LIMIT
            case State.WAITING:
                longest = min(RETRY_LAST, RETRY_FIRST * 2**self._attempts)
                self._attempts = min(self._attempts + 1, 10)
                timers[Event.RETRY_DUE] = now + longest * (0.5 + 0.5 * self._chance())
            case State.LAUNCHING:
                timers[Event.POLL_DUE] = now + patience.poll_interval
            case State.STOPPING:
                timers[Event.STOP_LATE] = now + patience.stop_timeout + KILL_MARGIN

    def _rearm(self, event: Event, actions: tuple[Action, ...], now: float) -> None:
        if Action.POLL in actions:
            self._timers[Event.ANSWER_LATE] = now + self._patience.poll_timeout
        if Action.KILL in actions:
            self._timers[Event.STOP_LATE] = min(self._timers[Event.STOP_LATE], now + KILL_MARGIN)
        if event is Event.REPORTED and self._timers.pop(Event.ANSWER_LATE, None) is not None:
            self._timers[Event.POLL_DUE] = now + self._patience.poll_interval

    def _own_verdict(self, event: Event) -> Verdict:
        patience = self._patience
        match event:
            case Event.SIGNALED:
                return Failed("it was stopped before it was launched")
            case Event.ANSWER_LATE:
                return Unreachable(f"no answer to a poll within {patience.poll_timeout:g} s")
            case Event.STOP_LATE:
                return Unreachable("the server did not say in time that it was stopped")
            case _:
                return Unreachable(f"no connection within {patience.connect_timeout:g} s{self._trouble}")
