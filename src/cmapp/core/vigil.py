"""The guest service's progress with one virtual machine: step it with events, carry out what it returns.

The table is in vm.py. What is judged by time is judged after its whole time, and a clock that is looked at much too
late judges nobody: this process, or its host, stood still. The invariant: a vigil ends with exactly one ending, which
says what is known and never more: a machine that nobody could tell of is `UNTOLD`, and of it alone.
"""

from __future__ import annotations

from cmapp.core.duration import LATE, format_duration
from cmapp.core.reading import ENDING, PANICKED, TROUBLES, Reading, Word
from cmapp.core.record import Record
from cmapp.core.vm import JUDGEMENTS, JUDGING, LIVE, READINGS, TABLE, TIMERS, Action, Event, State
from cmapp.core.vmending import CAUSES, Cause, Ending
from cmapp.errors import StateError

CHECK_LIMIT = 1.0  # seconds in which a guest that runs elsewhere would have answered
QUESTION_LIMIT = 20.0  # seconds for the second look at a guest that is silent
REASON_LIMIT = 5.0  # seconds for libvirt to say why a process has ended
FORCE_LIMIT = 20.0  # seconds for libvirt, or the stop command, to end it at once
KILL_LIMIT = 10.0  # seconds for a process to be gone after SIGKILL
ASK_AGAIN = 5.0  # seconds from one request to shut down to the next: a guest that boots does not hear the first


class Rules(Record):
    """What a vigil goes by, durations in seconds.

    `silence` is for how long a server that answered may be silent; `attended` tells whether there is one to answer.
    `alone` is the caller's word that the machine runs nowhere else; `adopt` that it must not be started, `leave` that
    a machine that is judged is not forced.
    """

    start_timeout: float = 180.0
    stop_timeout: float = 120.0
    silence: float = 45.0
    stall_timeout: float = 60.0
    doubt_timeout: float = 300.0
    attended: bool = True
    alone: bool = False
    adopt: bool = False
    leave: bool = False


# A stop was asked for in time, and what says that it has succeeded.
_STOPPED_FROM = (State.LOOKING, State.CHECKING, State.STOPPING, State.FORCING, State.KILLING)
_GONE = (
    Event.DOWN,
    Event.ELSEWHERE,
    Event.ABSENT,
    Event.REASON_LATE,
    Event.UNTOLD,
    Event.STOP_WANTED,
)


def event_of(reading: Reading) -> Event:
    """Return what a reading means."""
    if reading.how is Word.PAUSED:
        return (
            Event.PANICKED
            if reading.detail == PANICKED
            else (Event.STALLS if reading.detail in TROUBLES else Event.PAUSES)
        )
    return {
        Word.RUNNING: Event.RUNS,
        Word.MIGRATING: Event.MIGRATES,
        Word.DOWN: Event.DOWN,
        Word.ELSEWHERE: Event.ELSEWHERE,
        Word.UNKNOWN: Event.UNTOLD,
    }[reading.how]


class Vigil:
    """One machine's; step it with events and readings, call `clock` when `deadline` is due.

    `ready` tells whether its server has answered, or that it runs where no server is to answer; `overslept` is by how
    many seconds the last look at the clock was too late to judge, or 0.
    """

    __slots__ = (
        "_because",
        "_begun",
        "_blame",
        "_due",
        "_gone_from",
        "_leaves",
        "_reading",
        "_rules",
        "_stops",
        "_timers",
        "ending",
        "overslept",
        "ready",
        "state",
    )

    def __init__(self, rules: Rules, now: float) -> None:
        self.state = State.LOOKING
        self.ending: Ending | None = None
        self.ready = False
        self.overslept = 0.0
        self._rules = rules
        self._begun = now
        self._reading = Reading(Word.UNKNOWN)
        self._because = ""
        self._blame: Cause | None = None
        self._gone_from = self.state
        self._stops = 0
        self._due = False
        self._leaves = False
        self._timers: dict[Event, float] = {}
        self._enter(now)

    @property
    def deadline(self) -> float | None:
        """When the clock has to be looked at next, or None."""
        return min(self._timers.values(), default=None)

    @property
    def asked(self) -> bool:
        """Whether a stop was asked for."""
        return self._stops > 0

    def read(self, reading: Reading, now: float) -> tuple[Action, ...]:
        """Return what to do about a look at the machine."""
        if reading.detail == ENDING and self.state in (State.LOOKING, State.CHECKING):
            return ()  # the life before ours: what comes of it is waited for
        self._reading = reading
        return self.step(event_of(reading), now, reading.reason)

    def clock(self, now: float) -> tuple[Action, ...]:
        """Return what to do about the timers that are due, the earliest first."""
        self.overslept = 0.0
        actions: tuple[Action, ...] = ()
        while self._timers:
            event = min(self._timers, key=self._timers.__getitem__)
            late = now - self._timers[event]
            if late < 0:
                break
            if event in JUDGING and late > LATE:
                self._timers[event] = now + self._window(event)
                self.overslept = max(self.overslept, late)
            else:
                del self._timers[event]
                actions += self.step(event, now)
        return actions

    def step(self, event: Event, now: float, because: str = "") -> tuple[Action, ...]:
        """Return what to do about `event` at `now`, which `because` explains; raises StateError for what cannot be."""
        if event is Event.STOP_WANTED and self.state is State.LOOKING and not self._stops:
            self._stops, self._due = 1, True  # what is to be stopped is looked at first
            return ()
        self._stops += event is Event.STOP_WANTED
        actions = self._advance(self._meant(event), now, because)
        if self.state is State.STARTING:
            self._due |= event is Event.STOP_WANTED
            self._leaves |= event is Event.LEAVE_WANTED
        if self._due and (self.state in LIVE or (self.state is State.LOOKING and event is Event.UNTOLD)):
            self._due = False
            actions += self._advance(Event.STOP_WANTED, now, "")
        elif self._leaves and self.state in LIVE:
            actions += self._advance(Event.LEAVE_WANTED, now, "")
        if self.state is State.AWAITING and not self._rules.attended:
            actions += self._advance(Event.ANSWERED, now, "")
        return actions

    def _meant(self, event: Event) -> Event:
        """Return what an event means by the rules."""
        if self.state is State.LOOKING and event in (Event.DOWN, Event.ELSEWHERE):
            if self._rules.adopt or self._stops:
                return Event.ABSENT
            if event is Event.ELSEWHERE and self._rules.alone:
                return Event.DOWN
        if event is Event.ALIVE and not self.ready:
            return Event.HUNG  # it lives, but it was to be ready by now
        return event

    def _advance(self, event: Event, now: float, because: str) -> tuple[Action, ...]:
        entry = TABLE[self.state, event]
        if entry is None:
            raise StateError(f"{event.value} for a machine that is {self.state.value}")
        before, (state, actions) = self.state, entry
        self._because = because if event in READINGS else because or self._because
        if state is State.FORCING and event in JUDGEMENTS and before in LIVE:
            self._blame = self._judged(event)
            if self._rules.leave:
                state, actions = State.ENDED, (Action.CONCLUDE,)
        if state is State.GONE and before is not State.GONE:
            self._gone_from = before
        if Action.TELL_READY in actions:
            actions = () if self.ready else actions
            self.ready = True
        if state is State.ENDED and self.ending is None:
            self.ending = self._end(before, event, because)
        if state is not before:
            self.state = state
            kept = TIMERS[state] & TIMERS[before]
            self._timers = {timer: at for timer, at in self._timers.items() if timer in kept}
            self._enter(now)
        if event in (Event.ANSWERED, Event.ALIVE, Event.WITNESSED, Event.ASK_AGAIN):
            self._enter(now, again=True)
        return actions

    def _enter(self, now: float, *, again: bool = False) -> None:
        """Start the clocks of the state; `again` those that begin anew with each sign of life."""
        for event in TIMERS[self.state]:
            renewed = event in (Event.ANSWER_LATE, Event.DOUBT_LATE, Event.ASK_AGAIN) and again
            if event not in self._timers or renewed:
                if event is Event.ANSWER_LATE and not self._rules.attended:
                    continue
                left = self._begun + self._rules.start_timeout - now if event is Event.START_LATE else 0.0
                self._timers[event] = now + (left or self._window(event))

    def _window(self, event: Event) -> float:
        """Return the whole time of a clock."""
        rules = self._rules
        return {
            Event.CHECK_LATE: CHECK_LIMIT if rules.attended else 0.0,
            Event.START_LATE: rules.start_timeout,
            Event.ANSWER_LATE: rules.silence if self.ready else rules.start_timeout,
            Event.QUESTION_LATE: QUESTION_LIMIT,
            Event.STALL_LATE: rules.stall_timeout,
            Event.DOUBT_LATE: rules.doubt_timeout,
            Event.REASON_LATE: REASON_LIMIT,
            Event.ASK_AGAIN: ASK_AGAIN,
            Event.STOP_LATE: rules.stop_timeout,
            Event.FORCE_LATE: FORCE_LIMIT,
            Event.KILL_LATE: KILL_LIMIT,
        }[event]

    # ---- what it means at the end --------------------------------------------------------------------------

    def _judged(self, event: Event) -> Cause:
        if event is Event.PANICKED:
            return Cause.CRASHED
        if event is Event.STALL_LATE:
            return Cause.STALLED
        return Cause.HUNG if self.ready else Cause.NOT_READY

    def _end(self, before: State, event: Event, because: str) -> Ending:
        """Return the ending that `event` means to a machine that was `before`."""
        if event is Event.BROKEN:
            return Ending(Cause.FAILED, because)
        if event in (Event.KILL_LATE, Event.NOT_PROVEN):
            return Ending(Cause.UNTOLD, f"could not be stopped, or nobody can tell: {self._because}")
        if self._blame is not None:
            return Ending(self._blame, self._blamed(before))
        origin = self._gone_from if before is State.GONE else before
        if self._stops and origin in _STOPPED_FROM and event in _GONE:
            how = "at once, by force" if origin in (State.FORCING, State.KILLING) else "on request"
            told = self._after() if event in (Event.DOWN, Event.ELSEWHERE, Event.ABSENT) else ""
            return Ending(Cause.STOPPED, f"was stopped {how}{told}")
        if event is Event.LEAVE_WANTED:
            return Ending(Cause.LEFT, "was left as it is, as was asked for")
        return self._by_itself(before, event)

    def _by_itself(self, before: State, event: Event) -> Ending:
        match event:
            case Event.ANSWERED:
                return Ending(Cause.ELSEWHERE, "was not started: its server answers, so it runs elsewhere already")
            case Event.ABSENT:
                return Ending(Cause.ABSENT, f"does not run here, and was not to be started{self._after()}")
            case Event.ELSEWHERE if before is State.LOOKING:
                wanted = "start it where it is, or say --alone if it is sure to run nowhere else"
                return Ending(Cause.ELSEWHERE, f"was not started, as it may run elsewhere{self._after()}; {wanted}")
            case Event.ELSEWHERE:
                left = self._reading.detail == "migrated"
                return Ending(Cause.ELSEWHERE if left else Cause.GONE, f"is here no more{self._after()}")
            case Event.NOT_STARTED:
                return Ending(Cause.NOT_STARTED, f"could not be started{self._after()}")
            case Event.DOWN:
                return Ending(CAUSES.get(self._reading.detail, Cause.GONE), f"ended{self._after()}")
            case Event.REASON_LATE | Event.VANISHED | Event.UNTOLD:
                return Ending(Cause.GONE, "ended: its process is gone, and nobody can tell why")
            case Event.START_LATE:
                within = format_duration(self._rules.start_timeout)
                return Ending(Cause.UNTOLD, f"nobody could tell of it within {within}{self._after()}")
            case _:
                within = format_duration(self._rules.doubt_timeout)
                return Ending(Cause.UNTOLD, f"nobody could tell of it for {within}{self._after()}")

    def _blamed(self, before: State) -> str:
        rules = self._rules
        what = {
            Cause.HUNG: f"hung: its server did not answer for {format_duration(rules.silence)} while it ran",
            Cause.NOT_READY: f"its server did not answer within {format_duration(rules.start_timeout)}",
            Cause.STALLED: f"stood still for {format_duration(rules.stall_timeout)} though nobody had paused it",
        }.get(self._blame or Cause.CRASHED, "its guest has crashed")
        return f"{what}; it was {'left as it is' if before in LIVE else 'ended by force'}"

    def _after(self) -> str:
        return f": {self._because}" if self._because else ""
