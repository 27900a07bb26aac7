"""The table of the guest service: every state and event of a virtual machine, what follows, and what is waited for.

Readings are what libvirt, or the user's command, says of the machine. One that cannot be had (`untold`) leads to
`doubtful` and never to an end. The invariants: every (state, event) pair is here, None for what cannot happen; the
machine is started from `checking` alone, to which nothing leads back; and of a machine that was seen, only a
reading, a process that has ended, a judgement after a second look, or a request leads to the end.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """What is known of the machine, and what is wanted of it."""

    LOOKING = "looking"
    CHECKING = "checking"
    STARTING = "starting"
    AWAITING = "awaiting"
    RUNNING = "running"
    PAUSED = "paused"
    STALLED = "stalled"
    MIGRATING = "migrating"
    QUESTIONED = "questioned"
    DOUBTFUL = "doubtful"
    GONE = "gone"
    STOPPING = "stopping"
    FORCING = "forcing"
    KILLING = "killing"
    ENDED = "ended"


class Event(enum.Enum):
    """What happened: readings first; those from CHECK_LATE on come from the clock."""

    RUNS = "runs"
    PAUSES = "pauses"
    STALLS = "stalls"
    PANICKED = "panicked"
    MIGRATES = "migrates"
    DOWN = "down"
    ELSEWHERE = "elsewhere"
    ABSENT = "absent"
    UNTOLD = "untold"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    HUNG = "hung"
    ALIVE = "alive"
    WITNESSED = "witnessed"
    VANISHED = "vanished"
    STARTED = "started"
    NOT_STARTED = "not started"
    NOT_FORCED = "not forced"
    NOT_PROVEN = "not proven"
    STOP_WANTED = "stop wanted"
    LEAVE_WANTED = "leave wanted"
    BROKEN = "broken"
    CHECK_LATE = "check late"
    START_LATE = "start late"
    ANSWER_LATE = "answer late"
    QUESTION_LATE = "question late"
    STALL_LATE = "stall late"
    DOUBT_LATE = "doubt late"
    REASON_LATE = "reason late"
    ASK_AGAIN = "ask again"
    STOP_LATE = "stop late"
    FORCE_LATE = "force late"
    KILL_LATE = "kill late"


class Action(enum.Enum):
    """What the shell has to do about it, in this order."""

    CALL = "call"
    START = "start"
    TELL_READY = "tell ready"
    QUESTION = "question"
    SHUT_DOWN = "shut down"
    FORCE = "force"
    KILL = "kill"
    CONCLUDE = "conclude"


# The machine is there, and nothing is wanted of it but that it runs.
LIVE = (
    State.AWAITING,
    State.RUNNING,
    State.PAUSED,
    State.STALLED,
    State.MIGRATING,
    State.QUESTIONED,
    State.DOUBTFUL,
)
READINGS = (
    Event.RUNS,
    Event.PAUSES,
    Event.STALLS,
    Event.PANICKED,
    Event.MIGRATES,
    Event.DOWN,
    Event.ELSEWHERE,
    Event.UNTOLD,
)
# What judges a machine that is there; the shell's rules may say that it is then left as it is.
JUDGEMENTS = (Event.HUNG, Event.STALL_LATE, Event.PANICKED)

_Entry = tuple[State, tuple[Action, ...]]


def _table() -> dict[tuple[State, Event], _Entry | None]:
    """Write the table out: None is what cannot happen."""
    s, e, a = State, Event, Action
    end = (s.ENDED, (a.CONCLUDE,))
    force = (s.FORCING, (a.FORCE,))
    # What comes late, or says nothing new, changes nothing; what only the clock of another state says cannot come.
    happens = (*READINGS, e.ABSENT, e.ANSWERED, e.UNANSWERED, e.HUNG, e.ALIVE, e.WITNESSED, e.VANISHED)
    asked = (e.STOP_WANTED, e.LEAVE_WANTED, e.NOT_FORCED, e.NOT_PROVEN)
    table: dict[tuple[State, Event], _Entry | None]
    table = {(state, event): (state, ()) if event in (*happens, *asked) else None for state in s for event in e}
    table |= {(state, e.BROKEN): end for state in s}
    table |= _before(end) | _alive(end, force) | _ending(end, force)
    table |= {(s.ENDED, event): (s.ENDED, ()) for event in e}
    return table


def _before(end: _Entry) -> dict[tuple[State, Event], _Entry | None]:
    """Until the machine is there."""
    s, e, a = State, Event, Action
    table: dict[tuple[State, Event], _Entry | None] = {}
    for state in (s.LOOKING, s.CHECKING):
        table |= {
            (state, e.RUNS): (s.AWAITING, (a.CALL,)),
            (state, e.PAUSES): (s.PAUSED, (a.CALL,)),
            (state, e.STALLS): (s.STALLED, (a.CALL,)),
            (state, e.PANICKED): (s.FORCING, (a.FORCE,)),
            (state, e.MIGRATES): (s.MIGRATING, (a.CALL,)),
            (state, e.WITNESSED): (s.DOUBTFUL, (a.CALL,)),
            (state, e.STOP_WANTED): (s.STOPPING, (a.SHUT_DOWN,)),
            (state, e.LEAVE_WANTED): end,
            (state, e.START_LATE): end,
        }
    return table | {
        (s.LOOKING, e.DOWN): (s.CHECKING, (a.CALL,)),
        (s.LOOKING, e.ELSEWHERE): end,
        (s.LOOKING, e.ABSENT): end,
        (s.CHECKING, e.STOP_WANTED): end,
        (s.CHECKING, e.UNTOLD): (s.LOOKING, ()),
        (s.CHECKING, e.ANSWERED): end,
        (s.CHECKING, e.UNANSWERED): (s.STARTING, (a.START,)),
        (s.CHECKING, e.CHECK_LATE): (s.STARTING, (a.START,)),
        (s.STARTING, e.STARTED): (s.AWAITING, ()),
        (s.STARTING, e.NOT_STARTED): end,
        (s.STARTING, e.START_LATE): end,
    }


def _alive(end: _Entry, force: _Entry) -> dict[tuple[State, Event], _Entry | None]:
    """While the machine is there, as far as anybody knows."""
    s, e, a = State, Event, Action
    table: dict[tuple[State, Event], _Entry | None] = {}
    for state in LIVE:
        table |= {
            (state, e.PAUSES): (s.PAUSED, ()),
            (state, e.STALLS): (s.STALLED, ()),
            (state, e.PANICKED): force,
            (state, e.MIGRATES): (s.MIGRATING, ()),
            (state, e.UNTOLD): (s.DOUBTFUL, ()),
            (state, e.DOWN): end,
            (state, e.ELSEWHERE): end,
            (state, e.VANISHED): (s.GONE, ()),
            (state, e.STOP_WANTED): (s.STOPPING, (a.SHUT_DOWN,)),
            (state, e.LEAVE_WANTED): end,
        }
    for state in (s.PAUSED, s.STALLED, s.MIGRATING, s.DOUBTFUL):
        table |= {(state, e.RUNS): (s.AWAITING, ())}
    return table | {
        (s.AWAITING, e.ANSWERED): (s.RUNNING, (a.TELL_READY,)),
        (s.AWAITING, e.ANSWER_LATE): (s.QUESTIONED, (a.QUESTION,)),
        (s.RUNNING, e.ANSWER_LATE): (s.QUESTIONED, (a.QUESTION,)),
        (s.QUESTIONED, e.ANSWERED): (s.RUNNING, (a.TELL_READY,)),
        (s.QUESTIONED, e.ALIVE): (s.AWAITING, ()),
        (s.QUESTIONED, e.HUNG): force,
        # Whoever should answer the second look does not, so nobody can tell.
        (s.QUESTIONED, e.QUESTION_LATE): (s.DOUBTFUL, ()),
        (s.STALLED, e.STOP_WANTED): force,
        (s.STALLED, e.STALL_LATE): force,
        (s.DOUBTFUL, e.ANSWERED): (s.DOUBTFUL, (a.TELL_READY,)),
        (s.DOUBTFUL, e.DOUBT_LATE): end,
        # Nobody is there to say why.
        (s.DOUBTFUL, e.VANISHED): end,
    }


def _ending(end: _Entry, force: _Entry) -> dict[tuple[State, Event], _Entry | None]:
    """Once its process has ended, or it is to end."""
    s, e, a = State, Event, Action
    table: dict[tuple[State, Event], _Entry | None] = {
        (state, event): end for state in (s.GONE, s.STOPPING, s.FORCING, s.KILLING) for event in (e.DOWN, e.ELSEWHERE)
    }
    # libvirt is waited for, even where its word is not needed: until then nobody could start the machine again.
    table |= {(state, e.VANISHED): (s.GONE, ()) for state in (s.STOPPING, s.FORCING, s.KILLING)}
    return table | {
        (s.GONE, e.UNTOLD): end,
        (s.GONE, e.REASON_LATE): end,
        (s.STOPPING, e.ASK_AGAIN): (s.STOPPING, (a.SHUT_DOWN,)),
        (s.STOPPING, e.STALLS): force,
        (s.STOPPING, e.PANICKED): force,
        (s.STOPPING, e.STOP_WANTED): force,
        (s.STOPPING, e.STOP_LATE): force,
        (s.FORCING, e.NOT_FORCED): (s.KILLING, (a.KILL,)),
        (s.FORCING, e.FORCE_LATE): (s.KILLING, (a.KILL,)),
        (s.KILLING, e.NOT_PROVEN): end,
        (s.KILLING, e.KILL_LATE): end,
    }


TABLE = _table()

_STARTING = frozenset((Event.START_LATE,))
TIMERS: dict[State, frozenset[Event]] = {
    State.LOOKING: _STARTING,
    State.CHECKING: _STARTING | {Event.CHECK_LATE},
    State.STARTING: _STARTING,
    State.AWAITING: frozenset((Event.ANSWER_LATE,)),
    State.RUNNING: frozenset((Event.ANSWER_LATE,)),
    State.PAUSED: frozenset(),
    State.STALLED: frozenset((Event.STALL_LATE,)),
    State.MIGRATING: frozenset(),
    State.QUESTIONED: frozenset((Event.QUESTION_LATE,)),
    State.DOUBTFUL: frozenset((Event.DOUBT_LATE,)),
    State.GONE: frozenset((Event.REASON_LATE,)),
    State.STOPPING: frozenset((Event.ASK_AGAIN, Event.STOP_LATE)),
    State.FORCING: frozenset((Event.FORCE_LATE,)),
    State.KILLING: frozenset((Event.KILL_LATE,)),
    State.ENDED: frozenset(),
}
# A clock that is looked at much too late was not waited by, so it does not judge the machine.
JUDGING = frozenset((Event.ANSWER_LATE, Event.QUESTION_LATE, Event.STALL_LATE, Event.DOUBT_LATE, Event.START_LATE))
