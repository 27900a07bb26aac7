"""The health of one run: (state, event) -> (state, actions), how many checks failed in a row, and one deadline.

One check runs at a time: a command that was killed is waited for before the next. The invariant: only a check
that ran undisturbed from its start to its failure is counted. While nobody looked (the loop stood still: a
pause, a migration, a suspended machine) an innocent command may have run out of time, or its own patience, so
what fails then is asked again. While the run is held nothing is asked, and what was counted before is forgotten.
"""

from __future__ import annotations

import enum

from cmapp.core.duration import LATE, format_duration
from cmapp.core.text import printable
from cmapp.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cmapp.core.rules import HealthRules

TICK = 1.0  # seconds between looks at whether the loop stands still, while a command runs
SHORTEST = 0.1  # seconds that are waited at least, whatever the rules say
SHOWN = 300  # characters of what a command said


class State(enum.Enum):
    """How the checking is."""

    WAITING = "waiting"
    ASKING = "asking"
    DOUBTING = "doubting"
    ENDING = "ending"
    LETTING = "letting"
    HELD = "held"
    JUDGED = "judged"


class Event(enum.Enum):
    """What happened to it."""

    DUE = "due"
    STOOD_STILL = "stood still"
    PASSED = "passed"
    FAILED = "failed"
    UNTOLD = "untold"
    SPENT = "spent"
    HOLD = "hold"
    RELEASE = "release"


class Action(enum.Enum):
    """What has to be done about it; the last two are done here."""

    ASK = "ask"
    KILL = "kill"
    TELL = "tell"
    COUNT = "count"
    CLEAR = "clear"


def _table() -> dict[tuple[State, Event], tuple[State, tuple[Action, ...]] | None]:
    """Write the table out: None is what cannot happen."""
    s, e, a = State, Event, Action
    table: dict[tuple[State, Event], tuple[State, tuple[Action, ...]] | None]
    table = {(state, event): None for state in s for event in e}
    for state in s:  # what most states take without a change
        table[state, e.STOOD_STILL] = table[state, e.RELEASE] = (state, ())
    for answer in (e.PASSED, e.FAILED, e.UNTOLD):
        table |= {
            (s.ENDING, answer): (s.WAITING, ()),
            (s.LETTING, answer): (s.HELD, ()),
            (s.JUDGED, answer): (s.JUDGED, ()),
        }
    table |= {
        (s.WAITING, e.DUE): (s.ASKING, (a.ASK,)),
        (s.WAITING, e.SPENT): (s.JUDGED, (a.TELL,)),
        (s.WAITING, e.HOLD): (s.HELD, ()),
        (s.ASKING, e.DUE): (s.ENDING, (a.KILL, a.COUNT)),
        (s.ASKING, e.STOOD_STILL): (s.DOUBTING, ()),
        (s.ASKING, e.PASSED): (s.WAITING, (a.CLEAR,)),
        (s.ASKING, e.FAILED): (s.WAITING, (a.COUNT,)),
        (s.ASKING, e.UNTOLD): (s.WAITING, ()),
        (s.ASKING, e.HOLD): (s.LETTING, (a.KILL,)),
        (s.DOUBTING, e.DUE): (s.ENDING, (a.KILL,)),
        (s.DOUBTING, e.PASSED): (s.WAITING, (a.CLEAR,)),
        (s.DOUBTING, e.FAILED): (s.ASKING, (a.ASK,)),
        (s.DOUBTING, e.UNTOLD): (s.WAITING, ()),
        (s.DOUBTING, e.HOLD): (s.LETTING, (a.KILL,)),
        (s.ENDING, e.DUE): (s.ENDING, (a.COUNT,)),
        (s.ENDING, e.SPENT): (s.JUDGED, (a.TELL,)),
        (s.ENDING, e.HOLD): (s.LETTING, ()),
        (s.LETTING, e.HOLD): (s.LETTING, ()),
        (s.LETTING, e.RELEASE): (s.ENDING, (a.CLEAR,)),
        (s.HELD, e.HOLD): (s.HELD, ()),
        (s.HELD, e.RELEASE): (s.WAITING, (a.CLEAR,)),
        (s.JUDGED, e.HOLD): (s.JUDGED, ()),
    }
    return table


TABLE = _table()


class Checkup:
    """What is known of one run's health: `failures` in a row, and `detail`, what the last of them said.

    `wake` is when `tick` wants to be called next, in monotonic seconds, or None.
    """

    __slots__ = ("_deadline", "_passed", "_spread", "_untold", "detail", "failures", "rules", "state", "wake")

    def __init__(self, rules: HealthRules, now: float, spread: float = 0.0) -> None:
        """Begin at `now` with a run that is ready: its first check is due after one interval.

        Thousands of runs come back from a pause at the same moment: each waits for `spread` more of its interval,
        a number of its own from 0 to 1.
        """
        self._spread = spread
        self.state = State.WAITING
        self.failures = 0
        self.detail = ""
        self.rules = rules
        self._passed = False
        self._untold = ""  # why the last check told nothing
        self._deadline: float | None = None
        self.wake: float | None = None
        self._arm(now, 0.0)

    def tick(self, now: float) -> tuple[Action, ...]:
        """Return what is to be done because it is `now`: nothing is judged by a clock that stood still."""
        if self.wake is None or now < self.wake:
            return ()
        if self._late(now):
            return self.disturb(now)
        if self._deadline is None or now < self._deadline:
            self._look_again(now)
            return ()
        if self.state is State.ASKING:
            self.detail = f"gave no answer within {format_duration(self.rules.timeout)}"
        elif self.state is State.ENDING:
            self.detail = "gave no answer, and does not end by SIGKILL"
        return self._step(Event.DUE, now)

    def answer(self, event: Event, now: float, detail: str = "") -> tuple[Action, ...]:
        """Return what is to be done about the command's end: PASSED, FAILED, or UNTOLD if it told nothing.

        `detail` says how it ended, as part of a sentence whose subject is the command.
        """
        if self._late(now):
            self.disturb(now)
        said = printable(detail[:SHOWN])
        if self.state is State.ASKING and event is Event.FAILED:
            self.detail = said
        if self.state in (State.ASKING, State.DOUBTING):
            self._untold = said if event is Event.UNTOLD else ""
            self._passed = event is Event.PASSED
        return self._step(event, now)

    def disturb(self, now: float) -> tuple[Action, ...]:
        """Return what is to be done because nobody looked until `now`."""
        return self._step(Event.STOOD_STILL, now)

    def hold(self, now: float, *, on: bool) -> tuple[Action, ...]:
        """Return what is to be done when the run is held, or no longer."""
        return self._step(Event.HOLD if on else Event.RELEASE, now)

    @property
    def text(self) -> str:
        """How the run's health is, for a report."""
        if self._untold:
            return f"not checked: {self._untold}"
        if self.failures:
            return f"{self.failures} of {self.rules.retries} checks failed: {self.detail}"
        return "ok" if self._passed else "not checked yet"

    @property
    def verdict(self) -> str:
        """Why the run is unhealthy, as a sentence."""
        often = "" if self.failures == 1 else f" {self.failures} times in a row"
        return f"the health command failed{often}: {self.detail}"

    def _step(self, event: Event, now: float) -> tuple[Action, ...]:
        entry = TABLE[self.state, event]
        if entry is None:
            raise StateError(f"{event.value} for a health check that is {self.state.value}")
        state, actions = entry
        if state is not self.state or event in (Event.DUE, Event.STOOD_STILL):
            self.state = state
            self._arm(now, self._spread if event is Event.STOOD_STILL else 0.0)
        if Action.CLEAR in actions:
            self.failures = 0
            self._passed = event is Event.PASSED
            self._untold = ""
        if Action.COUNT in actions:
            self.failures += 1
            if self.failures >= self.rules.retries:
                actions += self._step(Event.SPENT, now)
        return tuple(action for action in actions if action not in (Action.COUNT, Action.CLEAR))

    def _late(self, now: float) -> bool:
        return self.wake is not None and now > self.wake + LATE

    def _arm(self, now: float, spread: float) -> None:
        patience: float | None = None
        if self.state in (State.WAITING, State.ENDING):
            patience = self.rules.interval * (1 + spread)
        elif self.state in (State.ASKING, State.DOUBTING):
            patience = self.rules.timeout
        self._deadline = None if patience is None else now + max(patience, SHORTEST)
        self._look_again(now)

    def _look_again(self, now: float) -> None:
        self.wake = self._deadline
        if self._deadline is not None and self.state in (State.ASKING, State.DOUBTING):
            self.wake = min(self._deadline, now + TICK)
