"""The life of one run in the guest: (state, event) -> (state, actions), and at most one deadline.

The leader is the process that was launched; the tree is the leader with all that it started. A run is over
only when its tree is empty, and its name is free only then. The end of a leader that ends by itself is told at
once, while what it left behind is killed; after a stop the end is told when nothing is left. In both cases it
is told exactly once. A stop that is wanted before the command runs waits for it: what prepares the command may
take the signal for something else. `Run` holds what a run knows, the shell carries out the actions and reports
the events.
"""

from __future__ import annotations

import enum

from cmapp.core.outcome import Outcome, Reason, Receipt, Unknown
from cmapp.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cmapp.core.messages import StopRules

KILL_PATIENCE = 10.0  # seconds after which a tree that survives SIGKILL is complained about, again and again


class State(enum.Enum):
    """How a run is."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    KILLING = "killing"
    CLEARING = "clearing"
    ENDED = "ended"


class Event(enum.Enum):
    """What happened to it."""

    SPAWNED = "spawned"
    SPAWN_FAILED = "spawn failed"
    STOP_WANTED = "stop wanted"
    KILL_WANTED = "kill wanted"
    LEADER_ENDED = "leader ended"
    TREE_EMPTY = "tree empty"
    DEADLINE_PASSED = "deadline passed"


class Action(enum.Enum):
    """What the shell has to do about it, in this order."""

    SIGNAL_TREE = "signal tree"
    KILL_TREE = "kill tree"
    WATCH_TREE = "watch tree"
    TELL_LAUNCHED = "tell launched"
    TELL_NOT_STARTED = "tell not started"
    TELL_ENDED = "tell ended"
    COMPLAIN = "complain"
    FREE_NAME = "free name"


def _table() -> dict[tuple[State, Event], tuple[State, tuple[Action, ...]] | None]:
    """Write the table out: None is what cannot happen."""
    s, e, a = State, Event, Action
    table: dict[tuple[State, Event], tuple[State, tuple[Action, ...]] | None]
    table = {(state, event): None for state in s for event in e}
    table |= {
        (s.STARTING, e.SPAWNED): (s.RUNNING, (a.TELL_LAUNCHED,)),
        (s.STARTING, e.SPAWN_FAILED): (s.CLEARING, (a.TELL_NOT_STARTED,)),
        (s.STARTING, e.STOP_WANTED): (s.STOPPING, ()),
        (s.STARTING, e.KILL_WANTED): (s.KILLING, (a.KILL_TREE,)),
        (s.RUNNING, e.STOP_WANTED): (s.STOPPING, (a.SIGNAL_TREE,)),
        (s.RUNNING, e.KILL_WANTED): (s.KILLING, (a.KILL_TREE,)),
        (s.RUNNING, e.LEADER_ENDED): (s.CLEARING, (a.KILL_TREE, a.TELL_ENDED, a.WATCH_TREE)),
        (s.STOPPING, e.SPAWNED): (s.STOPPING, (a.TELL_LAUNCHED, a.SIGNAL_TREE)),
        (s.STOPPING, e.SPAWN_FAILED): (s.CLEARING, (a.TELL_NOT_STARTED,)),
        (s.STOPPING, e.STOP_WANTED): (s.STOPPING, ()),
        (s.STOPPING, e.KILL_WANTED): (s.KILLING, (a.KILL_TREE,)),
        (s.STOPPING, e.LEADER_ENDED): (s.STOPPING, (a.WATCH_TREE,)),
        (s.STOPPING, e.TREE_EMPTY): (s.ENDED, (a.TELL_ENDED, a.FREE_NAME)),
        (s.STOPPING, e.DEADLINE_PASSED): (s.KILLING, (a.KILL_TREE,)),
        (s.KILLING, e.SPAWNED): (s.KILLING, (a.TELL_LAUNCHED,)),
        (s.KILLING, e.SPAWN_FAILED): (s.CLEARING, (a.TELL_NOT_STARTED,)),
        (s.KILLING, e.STOP_WANTED): (s.KILLING, ()),
        (s.KILLING, e.KILL_WANTED): (s.KILLING, (a.KILL_TREE,)),
        (s.KILLING, e.LEADER_ENDED): (s.KILLING, (a.WATCH_TREE,)),
        (s.KILLING, e.TREE_EMPTY): (s.ENDED, (a.TELL_ENDED, a.FREE_NAME)),
        (s.KILLING, e.DEADLINE_PASSED): (s.KILLING, (a.COMPLAIN, a.KILL_TREE)),
        (s.CLEARING, e.STOP_WANTED): (s.CLEARING, ()),
        (s.CLEARING, e.KILL_WANTED): (s.CLEARING, ()),
        (s.CLEARING, e.LEADER_ENDED): (s.CLEARING, (a.WATCH_TREE,)),
        (s.CLEARING, e.TREE_EMPTY): (s.ENDED, (a.FREE_NAME,)),
        (s.CLEARING, e.DEADLINE_PASSED): (s.CLEARING, (a.COMPLAIN, a.KILL_TREE)),
        (s.ENDED, e.STOP_WANTED): (s.ENDED, ()),
        (s.ENDED, e.KILL_WANTED): (s.ENDED, ()),
    }
    return table


TABLE = _table()


class Run:
    """What is known of one run: its state, when it must act next, and how it ended."""

    __slots__ = ("_forced", "_started", "_started_wall", "_stop", "deadline", "ended", "outcome", "reason", "state")

    def __init__(self, stop: StopRules, now: float, wall: float) -> None:
        self.state = State.STARTING
        self.deadline: float | None = None
        self.outcome: Outcome | None = None
        self.reason = Reason.ITSELF
        self.ended: float | None = None
        self._forced = False
        self._stop = stop
        self._started = now
        self._started_wall = wall

    def step(
        self, event: Event, now: float, *, reason: Reason | None = None, outcome: Outcome | None = None
    ) -> tuple[Action, ...]:
        """Return what to do about `event` at `now`; raises StateError for what cannot happen.

        `reason` goes with a wanted stop or kill, `outcome` with the leader's end.
        """
        entry = TABLE[self.state, event]
        if entry is None:
            raise StateError(f"{event.value} for a run that is {self.state.value}")
        if event in (Event.STOP_WANTED, Event.KILL_WANTED) and self.outcome is None and self.reason is Reason.ITSELF:
            self.reason = reason or Reason.ASKED
        if event is Event.LEADER_ENDED and self.ended is None:
            self.outcome, self.ended = outcome, now
        state, actions = entry
        if state is not self.state or event is Event.DEADLINE_PASSED:
            self.deadline = self._deadline(state, now)
        self._forced = self._forced or state is State.KILLING
        self.state = state
        return actions

    def uptime(self, now: float) -> float:
        """Return how many seconds the leader has run, or ran."""
        return max(0.0, (now if self.ended is None else self.ended) - self._started)

    def receipt(self, name: str, run_id: str, now: float) -> Receipt:
        """Return the record of how it ended."""
        lasted = self.uptime(now)
        return Receipt(
            name=name,
            run_id=run_id,
            outcome=self.outcome or Unknown("the server lost sight of it"),
            reason=self.reason,
            forced=self._forced,
            started=self._started_wall,
            ended=self._started_wall + lasted,
            lasted=lasted,
        )

    def _deadline(self, state: State, now: float) -> float | None:
        match state:
            case State.STOPPING:
                return now + self._stop.timeout
            case State.KILLING | State.CLEARING:
                return now + KILL_PATIENCE
        return None
