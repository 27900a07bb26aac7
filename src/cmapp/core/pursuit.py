"""The manager's pursuit of one run: connect, launch, poll, lose, return, conclude: (state, event) -> (state, actions).

The table is in course.py. Clocks are events: every state names the timers that may run in it, a timer that is due
is stepped like any other event, and leaving the state forgets them. A lost link is not a death: the pursuit goes
away and comes back, for as long as its patience lasts from the loss on, and launches the same run again, which
attaches to it. What is asked of it meanwhile is remembered, and carried out once it is back.
Before it gives up it asks for a second opinion, if there is anybody to ask: a guest that is paused has more time, one
that is down ends the wait.
A clock that is looked at much too late was not waited by: this process was stopped, or its host stood still. Then
what judges others begins anew.
The invariant: a pursuit ends with exactly one verdict, and it says what is known, never more.
"""

from __future__ import annotations

import math

from cmapp.core.course import (
    JUDGING,
    LINKED,
    RETURNING,
    SEEKING,
    TABLE,
    TIMERS,
    Action,
    Event,
    State,
)
from cmapp.core.duration import LATE, format_duration
from cmapp.core.outcome import Detached, Failed, GuestDown, Refused, Unknown, Unreachable, Verdict
from cmapp.core.patience import OPINION_EVERY, Patience
from cmapp.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cmapp.core.opinion import Doubt, Opinion

__all__ = [
    "JUDGING",
    "LINKED",
    "RETURNING",
    "SEEKING",
    "TABLE",
    "TIMERS",
    "Action",
    "Event",
    "Patience",
    "Pursuit",
    "State",
]

ATTEMPT_LIMIT = 10.0  # seconds that one attempt to connect and be welcomed may take
RETRY_FIRST, RETRY_LAST = 0.1, 5.0  # seconds between attempts: doubled each time, half of it by chance
KILL_MARGIN = 15.0  # seconds that the server has, past the stop timeout, to kill what is left and say so
NO_RUN, STOPPED = "no-run", "stopped"  # refusals: of a run that is not known, of a launch that was taken back


class Pursuit:
    """One manager's progress: step it with events, carry out what it returns, call `clock` when `deadline` is due.

    `held` is for the shell to set, as the last report said: a run that is held is not given up because its link
    is lost, unless it is to be stopped. `overslept` is by how many seconds the last look at the clock was too late
    to judge anybody, or 0; `loss` tells how the link was lost last.
    """

    __slots__ = (
        "_attempts",
        "_boots",
        "_chance",
        "_dismissed",
        "_doubt",
        "_launched",
        "_patience",
        "_returned",
        "_stops",
        "_timers",
        "_trouble",
        "held",
        "loss",
        "overslept",
        "state",
        "verdict",
    )

    def __init__(self, patience: Patience, chance: Callable[[], float], *, resume: bool = False) -> None:
        """`chance` returns a number from 0 to 1, for the jitter between attempts; `resume` is to launch nothing."""
        self.state = State.IDLE
        self.verdict: Verdict | None = None
        self.held = False
        self.overslept = 0.0
        self._patience = patience
        self._chance = chance
        self._attempts = 0
        self._boots: list[str] = []
        self._launched = resume
        self._returned = -math.inf
        self.loss = ""
        self._trouble = ""
        self._stops = 0
        self._dismissed = False
        self._doubt = _doubt() if patience.asks else None
        self._timers: dict[Event, float] = {}

    @property
    def deadline(self) -> float | None:
        """When the clock has to be looked at next, or None."""
        return min(self._timers.values(), default=None)

    @property
    def restarted(self) -> bool:
        """Whether the guest was started again since it was first asked to launch the run."""
        return len(set(filter(None, self._boots))) > 1

    @property
    def resume(self) -> bool:
        """Whether the launch must not start anything: the run is there, or was, or its end is lost."""
        return self._launched or self.restarted

    def meet(self, boot_id: str) -> None:
        """Note which boot of the guest welcomes us, before WELCOMED is stepped."""
        self._boots = [*self._boots[:1], boot_id]

    def clock(self, now: float, waited: float = 0.0) -> tuple[Action, ...]:
        """Return what to do about the timers that are due, the earliest first.

        For `waited` seconds before `now` the shell waited for others in a way that let it not look at the clock, as
        for a resolver: being late by that much is no reason to begin anew.
        """
        self.overslept = 0.0
        actions: tuple[Action, ...] = ()
        while self._timers:
            event = min(self._timers, key=self._timers.__getitem__)
            late = now - self._timers[event]
            if late < 0:
                break
            del self._timers[event]
            if event in JUDGING and late - waited > LATE:
                self._timers[event] = now + self._window(event)
                self.overslept = max(self.overslept, late)
            elif event is not Event.LIMIT_PASSED:
                actions += self.step(event, now)
            elif not self._spares:
                actions += self._give_up(now)
        return actions

    def opine(self, opinion: Opinion, now: float) -> tuple[Action, ...]:
        """Return what to do about the answer to ASK, which comes within OPINION_LIMIT, whatever became of the link."""
        doubt = self._doubt
        if doubt is None or not doubt.hear(opinion) or self.state not in (*SEEKING, *RETURNING):
            return ()
        self._timers[Event.OPINION_DUE] = now + OPINION_EVERY
        if doubt.down and self.state in RETURNING and not self._spares:
            return self.step(Event.GUEST_DOWN, now, GuestDown(f"{self.loss}; {opinion.text}"))
        limit = max(now, min(doubt.until(now, self._patience.pause_timeout), now + self._window(Event.LIMIT_PASSED)))
        if doubt.overdue or limit > self._timers.get(Event.LIMIT_PASSED, limit):
            self._timers[Event.LIMIT_PASSED] = limit
        doubt.overdue = False
        return ()

    @property
    def _spares(self) -> bool:
        """Whether nothing may end the wait: the run is held, and nobody has asked to stop it."""
        return self.held and not self._stops

    def _give_up(self, now: float) -> tuple[Action, ...]:
        """End the wait, or put that off until the answer is there, if there is somebody to hear first."""
        doubt = self._doubt
        if doubt is None or not doubt.open(now):
            return self.step(Event.LIMIT_PASSED, now)
        doubt.overdue = True
        return () if doubt.asking else self.step(Event.OPINION_DUE, now)

    def step(self, event: Event, now: float, because: Verdict | None = None) -> tuple[Action, ...]:
        """Return what to do about `event` at `now`; raises StateError for what cannot happen.

        `because` is the verdict in case this event ends the pursuit; the clock's events and a request before the
        launch have their own, which repeats the text of the last `because` of an attempt that failed.
        """
        actions = self._advance(event, now, because)
        if event in (Event.DISMISSED, Event.REFUSED):
            self._dismissed = event is Event.DISMISSED
        if event is Event.SIGNALED:
            self._stops += 1
            if self.state in RETURNING:
                self._timers.setdefault(Event.LIMIT_PASSED, now + self._window(Event.LIMIT_PASSED))
        # What was asked while nobody could be told: a stop outdoes a dismissal, and twice means to kill.
        if self.state in (State.LAUNCHING, State.WATCHING) and self._stops:
            for _ in range(min(self._stops, 2)):
                actions += self._advance(Event.SIGNALED, now, None)
        elif self.state is State.WATCHING and self._dismissed:
            actions += self._advance(Event.DISMISSED, now, None)
        return actions

    def _advance(self, event: Event, now: float, because: Verdict | None) -> tuple[Action, ...]:
        entry = TABLE[self.state, event]
        if entry is None:
            raise StateError(f"{event.value} for a pursuit that is {self.state.value}")
        before, (state, actions) = self.state, entry
        self._launched |= event is Event.LAUNCHED
        self._note_trouble(event, now, because)
        if state is State.CONCLUDED and self.verdict is None:
            self.verdict = self._judge(event, because)
        if state is not before:
            self.state = state
            self._timers = {timer: at for timer, at in self._timers.items() if timer in TIMERS[state]}
            self._enter(state, now)
        self._rearm(event, actions, now)
        return actions

    def _enter(self, state: State, now: float) -> None:
        timers = self._timers
        if state in (State.CONNECTING, State.AWAY):
            timers.setdefault(Event.LIMIT_PASSED, now + self._window(Event.LIMIT_PASSED))
            if self._doubt is not None and not self._doubt.asking:
                timers.setdefault(Event.OPINION_DUE, now if state is State.AWAY else now + OPINION_EVERY)
        elif state in LINKED and self._doubt is not None:
            self._doubt.settle()
        match state:
            case State.CONNECTING | State.RECONNECTING:
                timers[Event.ATTEMPT_LATE] = now + ATTEMPT_LIMIT
            case State.WAITING | State.AWAY:
                longest = min(RETRY_LAST, RETRY_FIRST * 2**self._attempts)
                self._attempts = min(self._attempts + 1, 10)
                timers[Event.RETRY_DUE] = now + longest * (0.5 + 0.5 * self._chance())
            case State.LAUNCHING:
                timers[Event.POLL_DUE] = now + self._patience.poll_interval
            case State.REATTACHING:
                self._returned = now
            case State.STOPPING:
                timers[Event.STOP_LATE] = now + self._window(Event.STOP_LATE)

    def _rearm(self, event: Event, actions: tuple[Action, ...], now: float) -> None:
        if Action.ASK in actions and self._doubt is not None:
            self._doubt.asking = True
            self._timers.pop(Event.OPINION_DUE, None)
        if Action.POLL in actions:
            self._timers[Event.ANSWER_LATE] = now + self._window(Event.ANSWER_LATE)
        if Action.KILL in actions:
            self._timers[Event.STOP_LATE] = min(self._timers[Event.STOP_LATE], now + KILL_MARGIN)
        if event is Event.REPORTED and self._timers.pop(Event.ANSWER_LATE, None) is not None:
            self._timers[Event.POLL_DUE] = now + self._patience.poll_interval

    def _window(self, event: Event) -> float:
        """Return for how long a timer that judges others lets them be."""
        patience = self._patience
        match event:
            case Event.LIMIT_PASSED if self.state in RETURNING:
                return patience.link_timeout
            case Event.LIMIT_PASSED:
                return patience.connect_timeout
            case Event.ANSWER_LATE:
                return patience.poll_timeout
            case Event.STOP_LATE:
                return KILL_MARGIN if self._stops > 1 else patience.stop_timeout + KILL_MARGIN
            case _:
                return ATTEMPT_LIMIT

    def _note_trouble(self, event: Event, now: float, because: Verdict | None) -> None:
        """Keep what the last word may have to repeat: how the link was lost, and how the last attempt failed."""
        if event is Event.LINK_LOST and isinstance(because, Unreachable):
            trouble = because.text
        elif event in (Event.ATTEMPT_LATE, Event.ANSWER_LATE):
            late = ATTEMPT_LIMIT if event is Event.ATTEMPT_LATE else self._patience.poll_timeout
            what = "no answer" if event is Event.ATTEMPT_LATE else "no answer to a poll"
            trouble = f"{what} within {late:g} s"
        elif event is Event.DETACHED:
            trouble = "it was left when it was to be stopped"
        elif event is Event.LINK_LOST:
            trouble = self._trouble
        else:
            return
        if self.state not in LINKED:
            self._trouble = trouble
            return
        self.loss, self._trouble = trouble or "the link was lost", ""
        if now - self._returned > RETRY_LAST:
            self._attempts = 0  # it comes back at once, unless it keeps coming and going

    def _judge(self, event: Event, because: Verdict | None) -> Verdict:
        """Return what `event` means at the end."""
        patience, trouble = self._patience, self._trouble and f": {self._trouble}"
        opinion = self._doubt and self._doubt.opinion
        trouble += f"; of the guest it is said: {opinion.text}" if opinion else ""
        match event:
            case Event.REFUSED if self.resume and _code(because) == NO_RUN:
                lost = "the server knows nothing of it any more"
                return Unknown("the guest was restarted meanwhile" if self.restarted else lost)
            case Event.REFUSED if self._stops and not self._launched and _code(because) == STOPPED:
                return Failed("it was stopped before it was launched")
            case _ if because is not None:
                return because
            case Event.SIGNALED | Event.DISMISSED:
                what = "stopped" if event is Event.SIGNALED else "dismissed"
                return Failed(f"it was {what} before it was launched")
            case Event.DETACHED:
                return Detached("for a later manager, as was asked for")
            case Event.STOP_LATE:
                return Unreachable("the server did not say in time that it was stopped")
            case _ if self.state in RETURNING:
                return Unreachable(f"{self.loss}; no way back within {format_duration(patience.link_timeout)}{trouble}")
            case _:
                return Unreachable(f"no connection within {patience.connect_timeout:g} s{trouble}")


def _doubt() -> Doubt:
    from cmapp.core.opinion import Doubt  # noqa: PLC0415 - costs part of a millisecond, and most ask nobody

    return Doubt()


def _code(because: Verdict | None) -> str:
    """Return the code of a refusal, "" of anything else."""
    return because.code if isinstance(because, Refused) else ""
