"""The life of one run in the guest: (state, event) -> (state, actions), and the timers that may end its states.

The leader is the application's main process; the tree is the leader with all that it started. A run is over
only when its tree is empty, and its name is free only then. The end of a leader that ends by itself is told at
once, while what it left behind is killed; after a stop the end is told when nothing is left. In both cases it
is told exactly once. Nothing is executed before the run is recorded, and a stop that is wanted before the
command runs waits for it: what prepares the command may take the signal for something else.

Judgements are the events by which the server itself decides to stop a run. Clocks are events too: a timer that is
due is stepped like any other event. core/run.py is what knows a run's state and times.
"""

from __future__ import annotations

import enum

from cmapp.core.outcome import Reason


class State(enum.Enum):
    """How a run is."""

    STARTING = "starting"
    READYING = "readying"
    RUNNING = "running"
    STOPPING = "stopping"
    KILLING = "killing"
    CLEARING = "clearing"
    ENDED = "ended"


class Event(enum.Enum):
    """What happened to it; UNREADY, HUNG, ORPHANED and DEADLINE_PASSED come from the clock."""

    RECORDED = "recorded"
    NOT_RECORDED = "not recorded"
    SPAWNED = "spawned"
    SPAWN_FAILED = "spawn failed"
    READY = "ready"
    STOP_WANTED = "stop wanted"
    KILL_WANTED = "kill wanted"
    STOP_COMMAND_ENDED = "stop command ended"
    LEADER_ENDED = "leader ended"
    TREE_EMPTY = "tree empty"
    UNHEALTHY = "unhealthy"
    UNREADY = "not ready in time"
    HUNG = "watchdog not heard in time"
    ORPHANED = "manager lost for too long"
    DEADLINE_PASSED = "deadline passed"


class Action(enum.Enum):
    """What the shell has to do about it, in this order."""

    EXECUTE = "execute"
    ASK_TO_STOP = "ask to stop"
    SIGNAL_TREE = "signal tree"
    SIGNAL_REST = "signal rest"
    KILL_TREE = "kill tree"
    WATCH_TREE = "watch tree"
    TELL_LAUNCHED = "tell launched"
    TELL_NOT_STARTED = "tell not started"
    TELL_READY = "tell ready"
    TELL_ENDED = "tell ended"
    COMPLAIN = "complain"
    FREE_NAME = "free name"


JUDGEMENTS = {
    Event.UNHEALTHY: Reason.UNHEALTHY,
    Event.UNREADY: Reason.NOT_READY,
    Event.HUNG: Reason.HUNG,
    Event.ORPHANED: Reason.MANAGER_LOST,
}


def _table() -> dict[tuple[State, Event], tuple[State, tuple[Action, ...]] | None]:
    """Write the table out: None is what cannot happen."""
    s, e, a = State, Event, Action
    table: dict[tuple[State, Event], tuple[State, tuple[Action, ...]] | None]
    table = {(state, event): None for state in s for event in e}
    ending = (s.STOPPING, s.KILLING, s.CLEARING, s.ENDED)
    # What was under way when the run began to end: it comes too late to matter.
    late = (e.RECORDED, e.NOT_RECORDED, e.READY, e.STOP_WANTED, e.STOP_COMMAND_ENDED, *JUDGEMENTS)
    table |= {(state, event): (state, ()) for state in ending for event in late}
    table |= {(state, e.KILL_WANTED): (state, ()) for state in (s.CLEARING, s.ENDED)}
    for state in (s.STARTING, s.STOPPING):
        table |= {
            (state, e.RECORDED): (state, (a.EXECUTE,)),
            (state, e.NOT_RECORDED): (s.KILLING, (a.KILL_TREE,)),
        }
    for state in (s.STARTING, s.STOPPING, s.KILLING):
        table |= {(state, e.SPAWN_FAILED): (s.CLEARING, (a.TELL_NOT_STARTED,))}
    for state in (s.STARTING, s.READYING, s.RUNNING, s.STOPPING, s.KILLING):
        table |= {(state, e.KILL_WANTED): (s.KILLING, (a.KILL_TREE,))}
    for state in (s.READYING, s.RUNNING):
        table |= {
            (state, e.STOP_WANTED): (s.STOPPING, (a.ASK_TO_STOP,)),
            (state, e.LEADER_ENDED): (s.CLEARING, (a.KILL_TREE, a.TELL_ENDED, a.WATCH_TREE)),
            **{(state, judgement): (s.STOPPING, (a.ASK_TO_STOP,)) for judgement in JUDGEMENTS},
        }
    return table | {
        (s.STARTING, e.SPAWNED): (s.READYING, (a.TELL_LAUNCHED,)),
        (s.STARTING, e.STOP_WANTED): (s.STOPPING, ()),
        (s.STARTING, e.ORPHANED): (s.STOPPING, ()),
        (s.READYING, e.READY): (s.RUNNING, (a.TELL_READY,)),
        (s.RUNNING, e.READY): (s.RUNNING, ()),
        (s.STOPPING, e.SPAWNED): (s.STOPPING, (a.TELL_LAUNCHED, a.ASK_TO_STOP)),
        (s.STOPPING, e.STOP_COMMAND_ENDED): (s.STOPPING, (a.SIGNAL_TREE,)),
        (s.STOPPING, e.LEADER_ENDED): (s.STOPPING, (a.SIGNAL_REST, a.WATCH_TREE)),
        (s.STOPPING, e.TREE_EMPTY): (s.ENDED, (a.TELL_ENDED, a.FREE_NAME)),
        (s.STOPPING, e.DEADLINE_PASSED): (s.KILLING, (a.KILL_TREE,)),
        (s.KILLING, e.SPAWNED): (s.KILLING, (a.TELL_LAUNCHED,)),
        (s.KILLING, e.LEADER_ENDED): (s.KILLING, (a.WATCH_TREE,)),
        (s.KILLING, e.TREE_EMPTY): (s.ENDED, (a.TELL_ENDED, a.FREE_NAME)),
        (s.KILLING, e.DEADLINE_PASSED): (s.KILLING, (a.COMPLAIN, a.KILL_TREE)),
        (s.CLEARING, e.LEADER_ENDED): (s.CLEARING, (a.WATCH_TREE,)),
        (s.CLEARING, e.TREE_EMPTY): (s.ENDED, (a.FREE_NAME,)),
        (s.CLEARING, e.DEADLINE_PASSED): (s.CLEARING, (a.COMPLAIN, a.KILL_TREE)),
    }


TABLE = _table()

# The timers that may run in a state; the others are forgotten when it is entered.
TIMERS: dict[State, frozenset[Event]] = {
    State.STARTING: frozenset((Event.ORPHANED,)),
    State.READYING: frozenset((Event.ORPHANED, Event.UNREADY, Event.HUNG)),
    State.RUNNING: frozenset((Event.ORPHANED, Event.HUNG)),
    State.STOPPING: frozenset((Event.DEADLINE_PASSED,)),
    State.KILLING: frozenset((Event.DEADLINE_PASSED,)),
    State.CLEARING: frozenset((Event.DEADLINE_PASSED,)),
    State.ENDED: frozenset(),
}
