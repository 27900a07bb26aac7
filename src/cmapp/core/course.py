"""The table of the manager's pursuit: every state and event, what follows, and what may be waited for.

The four states from AWAY on lead back to a run that was launched before its link was lost. The invariant: every
(state, event) pair is here, None for what cannot happen, and each clock's event can fire where its timer may run.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """How far the pursuit is."""

    IDLE = "idle"
    CONNECTING = "connecting"
    WAITING = "waiting"
    GREETING = "greeting"
    LAUNCHING = "launching"
    WATCHING = "watching"
    STOPPING = "stopping"
    DETACHING = "detaching"
    AWAY = "away"
    RECONNECTING = "reconnecting"
    REGREETING = "regreeting"
    REATTACHING = "reattaching"
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
    DETACHED = "detached"
    LINK_LOST = "link lost"
    DENIED = "denied"
    SIGNALED = "signaled"
    DISMISSED = "dismissed"
    BROKEN = "broken"
    GUEST_DOWN = "guest down"
    RETRY_DUE = "retry due"
    ATTEMPT_LATE = "attempt late"
    LIMIT_PASSED = "limit passed"
    OPINION_DUE = "opinion due"
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
    DETACH = "detach"
    ASK = "ask"
    ACKNOWLEDGE = "acknowledge"
    CONCLUDE = "conclude"


# To the first launch; on a link that serves the run; back to one.
SEEKING = (State.CONNECTING, State.WAITING, State.GREETING)
LINKED = (State.LAUNCHING, State.WATCHING, State.STOPPING, State.DETACHING)
RETURNING = (State.AWAY, State.RECONNECTING, State.REGREETING, State.REATTACHING)


def _table() -> dict[tuple[State, Event], tuple[State, tuple[Action, ...]] | None]:
    """Write the table out: None is what cannot happen."""
    s, e, a = State, Event, Action
    end = (s.CONCLUDED, (a.HANG_UP, a.CONCLUDE))
    again, away = (s.WAITING, (a.HANG_UP,)), (s.AWAY, (a.HANG_UP,))
    table: dict[tuple[State, Event], tuple[State, tuple[Action, ...]] | None]
    table = {(state, event): None for state in s for event in e}
    table |= {(state, e.BROKEN): end for state in s}
    table |= {(state, event): end for state in (s.IDLE, *SEEKING) for event in (e.SIGNALED, e.DISMISSED)}
    table |= {(state, event): (state, ()) for state in RETURNING for event in (e.SIGNALED, e.DISMISSED)}
    table |= {(state, e.LIMIT_PASSED): end for state in (*SEEKING, *RETURNING)}
    table |= {(state, e.OPINION_DUE): (state, (a.ASK,)) for state in (*SEEKING, *RETURNING)}
    table |= {(state, e.GUEST_DOWN): end for state in RETURNING}
    for event in (e.LINK_LOST, e.ATTEMPT_LATE):
        table |= {(state, event): again for state in (s.CONNECTING, s.GREETING)}
        table |= {(state, event): away for state in (s.RECONNECTING, s.REGREETING)}
    for state in (s.CONNECTING, s.GREETING, *LINKED, s.RECONNECTING, s.REGREETING, s.REATTACHING):
        table |= {(state, e.DENIED): end}
    for state in (*LINKED, s.REATTACHING):
        table |= {(state, e.ANSWER_LATE): away, (state, e.LINK_LOST): away}
    for state in LINKED:
        table |= {(state, e.POLL_DUE): (state, (a.POLL,)), (state, e.REPORTED): (state, ())}
    for state in (s.LAUNCHING, s.STOPPING, s.REATTACHING):
        table |= {(state, e.NOT_STARTED): end, (state, e.REFUSED): end}
    for state in (s.WATCHING, s.STOPPING, s.DETACHING):
        table |= {(state, e.EXITED): (s.CONCLUDED, (a.ACKNOWLEDGE, a.HANG_UP, a.CONCLUDE))}
    table |= {
        (s.IDLE, e.BEGUN): (s.CONNECTING, (a.CONNECT,)),
        (s.WAITING, e.RETRY_DUE): (s.CONNECTING, (a.CONNECT,)),
        (s.CONNECTING, e.CONNECTED): (s.GREETING, (a.SAY_HELLO,)),
        (s.GREETING, e.WELCOMED): (s.LAUNCHING, (a.LAUNCH,)),
        (s.GREETING, e.REFUSED): end,
        (s.LAUNCHING, e.LAUNCHED): (s.WATCHING, ()),
        (s.LAUNCHING, e.SIGNALED): (s.STOPPING, (a.STOP,)),
        (s.LAUNCHING, e.DISMISSED): (s.LAUNCHING, ()),
        (s.WATCHING, e.SIGNALED): (s.STOPPING, (a.STOP,)),
        (s.WATCHING, e.DISMISSED): (s.DETACHING, (a.DETACH,)),
        (s.STOPPING, e.LAUNCHED): (s.STOPPING, ()),
        (s.STOPPING, e.SIGNALED): (s.STOPPING, (a.KILL,)),
        (s.STOPPING, e.DISMISSED): (s.STOPPING, ()),
        (s.STOPPING, e.STOP_LATE): end,
        # Who was asked to stop it after all has to go back for it: a link serves a run until it is left.
        (s.STOPPING, e.DETACHED): away,
        (s.DETACHING, e.DETACHED): end,
        (s.DETACHING, e.REFUSED): (s.WATCHING, ()),
        (s.DETACHING, e.SIGNALED): (s.STOPPING, (a.STOP,)),
        (s.DETACHING, e.DISMISSED): (s.DETACHING, ()),
        (s.AWAY, e.RETRY_DUE): (s.RECONNECTING, (a.CONNECT,)),
        (s.RECONNECTING, e.CONNECTED): (s.REGREETING, (a.SAY_HELLO,)),
        # The poll makes a server that has to think about the launch answer at once.
        (s.REGREETING, e.WELCOMED): (s.REATTACHING, (a.LAUNCH, a.POLL)),
        (s.REGREETING, e.REFUSED): end,
        (s.REATTACHING, e.LAUNCHED): (s.WATCHING, ()),
        (s.REATTACHING, e.REPORTED): (s.LAUNCHING, ()),
    }
    table |= {(s.CONCLUDED, event): (s.CONCLUDED, ()) for event in e}
    return table


TABLE = _table()

# The timers that may run in a state; a link's own are forgotten with it.
_SEEKING = frozenset((Event.LIMIT_PASSED, Event.OPINION_DUE))
_LINKED = frozenset((Event.POLL_DUE, Event.ANSWER_LATE))
TIMERS: dict[State, frozenset[Event]] = {
    State.IDLE: frozenset(),
    State.CONNECTING: _SEEKING | {Event.ATTEMPT_LATE},
    State.WAITING: _SEEKING | {Event.RETRY_DUE},
    State.GREETING: _SEEKING | {Event.ATTEMPT_LATE},
    State.LAUNCHING: _LINKED,
    State.WATCHING: _LINKED,
    State.STOPPING: _LINKED | {Event.STOP_LATE},
    State.DETACHING: _LINKED,
    State.AWAY: _SEEKING | {Event.RETRY_DUE},
    State.RECONNECTING: _SEEKING | {Event.ATTEMPT_LATE},
    State.REGREETING: _SEEKING | {Event.ATTEMPT_LATE},
    State.REATTACHING: _SEEKING | {Event.ANSWER_LATE},
    State.CONCLUDED: frozenset(),
}
JUDGING = frozenset((Event.ANSWER_LATE, Event.STOP_LATE, Event.LIMIT_PASSED, Event.ATTEMPT_LATE))
