"""What is known of one run in the guest: its state, its timers, and how it ended.

It goes by the table of core/lifecycle.py. A run that is held does not hear judgements. A timer that is looked at
much too late means that this machine, or this server, stood still: its window begins anew instead of ending. The
invariant: the outcome and the reason of an end, once known, never change.
"""

from __future__ import annotations

from cmapp.core.duration import LATE
from cmapp.core.lifecycle import JUDGEMENTS, TABLE, TIMERS, Action, Event, State
from cmapp.core.outcome import Outcome, Reason, Receipt, Unknown
from cmapp.core.rules import Kind, OrphanAction
from cmapp.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cmapp.core.messages import Launch

KILL_PATIENCE = 10.0  # seconds after which a tree that survives SIGKILL is complained about, again and again
READY_LIMIT = 60.0  # seconds that an application has which forks, or notifies, to say that it is there
RETURN_LEAST = 10.0  # seconds that a manager has to return after the server itself came back

_STATE_TIMERS = (Event.UNREADY, Event.HUNG, Event.DEADLINE_PASSED)  # armed when a state is entered


class Run:
    """What is known of one run: its state, when the clock must be looked at next, and how it ended.

    `started` is when it was launched, on the monotonic clock of this boot, and `started_wall` on the wall's.
    """

    __slots__ = (
        "_launch",
        "_timers",
        "detail",
        "ended",
        "forced",
        "held",
        "outcome",
        "ready",
        "reason",
        "started",
        "started_wall",
        "state",
    )

    def __init__(self, launch: Launch, now: float, wall: float, state: State = State.STARTING) -> None:
        self.state = state
        self.outcome: Outcome | None = None
        self.reason = Reason.ITSELF
        self.detail = ""
        self.ended: float | None = None
        self.forced = False
        self.held = False
        self.ready = False
        self.started = now
        self.started_wall = wall
        self._launch = launch
        self._timers: dict[Event, float] = {}

    # ---- events --------------------------------------------------------------------------------------------

    def step(
        self,
        event: Event,
        now: float,
        *,
        reason: Reason = Reason.ASKED,
        detail: str = "",
        outcome: Outcome | None = None,
    ) -> tuple[Action, ...]:
        """Return what to do about `event` at `now`; raises StateError for what cannot happen.

        `reason` goes with a wanted stop or kill, `detail` with a judgement, or, if more is known than the outcome, with
        the leader's end; `outcome` with that.
        """
        entry = TABLE[self.state, event]
        if entry is None:
            raise StateError(f"{event.value} for a run that is {self.state.value}")
        if event in JUDGEMENTS and self.held:
            return ()
        state, actions = entry
        if state in (State.STOPPING, State.KILLING) and self.outcome is None and self.reason is Reason.ITSELF:
            self.reason, self.detail = JUDGEMENTS.get(event, reason), detail
        if event is Event.LEADER_ENDED and self.ended is None:
            self.outcome, self.ended = outcome, now
            self.detail = detail if self.reason is Reason.ITSELF else self.detail
        self.ready = self.ready or event is Event.READY
        self._timers.pop(event, None)
        if state is not self.state or event is Event.DEADLINE_PASSED:
            self._enter(state, now)
        if event is Event.SPAWNED and state is State.READYING and not self.says_ready:
            actions += self.step(Event.READY, now)
        return actions

    def clock(self, now: float) -> Event | None:
        """Return the event of a timer that is due, which is to be stepped, or None.

        One that is due for much too long is armed anew instead.
        """
        while self._timers:
            event = min(self._timers, key=self._timers.__getitem__)
            if self._timers[event] > now:
                break
            if now - self._timers[event] <= LATE:
                return event
            self._arm(event, now)
        return None

    @property
    def deadline(self) -> float | None:
        """When the clock has to be looked at next, or None."""
        return min(self._timers.values(), default=None)

    # ---- what is known of it -------------------------------------------------------------------------------

    def orphan(self, now: float, since: float | None = None) -> None:
        """Take note that nobody watches it, now or `since` before the server came back."""
        if self._launch.orphan.action is OrphanAction.STOP and not self.held and Event.ORPHANED in TIMERS[self.state]:
            timeout = self._launch.orphan.timeout
            at = now + timeout if since is None else max(since + timeout, now + min(timeout, RETURN_LEAST))
            self._timers[Event.ORPHANED] = at

    def resume(self, now: float, *, left: bool, orphaned: float | None) -> None:
        """Go on after the server came back: every window begins anew, but an orphan's, since `orphaned`, goes on.

        `left` tells that its manager left it on purpose.
        """
        if not self.held or not self.judged:
            self._arm_state(now)
        if not left:
            self.orphan(now, orphaned)

    def found(self) -> None:
        """Take note that a manager watches it."""
        self._timers.pop(Event.ORPHANED, None)

    def beat(self, now: float) -> None:
        """Take note that the application fed its watchdog."""
        if Event.HUNG in self._timers:
            self._arm(Event.HUNG, now)

    def hold(self, now: float, *, on: bool, orphan: bool) -> None:
        """Let it be, or no longer: then every window begins anew, that of an orphan too."""
        self.held = on
        for event in JUDGEMENTS:
            self._timers.pop(event, None)
        if not on:
            self._arm_state(now)
            if orphan:
                self.orphan(now)

    @property
    def says_ready(self) -> bool:
        """Whether readiness is something of its own; else a run is ready as soon as it is launched."""
        return self._launch.ready is not None or self._launch.kind is not Kind.SIMPLE or bool(self._launch.unit)

    @property
    def _comes_up(self) -> bool:
        """Whether its kind alone asks for readiness; to a unit systemd itself gives its time, by the unit's file."""
        return self._launch.kind is not Kind.SIMPLE and not self._launch.unit

    @property
    def alive(self) -> bool:
        """Whether the application itself still runs, or may."""
        return self.state not in (State.CLEARING, State.ENDED)

    @property
    def judged(self) -> bool:
        """Whether its checks may decide that it is to be stopped, unless it is held."""
        return self.state in (State.READYING, State.RUNNING)

    @property
    def stopping(self) -> bool:
        """Whether it is being ended."""
        return self.state in (State.STOPPING, State.KILLING)

    def uptime(self, now: float) -> float:
        """Return how many seconds the leader has run, or ran."""
        return max(0.0, (now if self.ended is None else self.ended) - self.started)

    def receipt(self, now: float) -> Receipt:
        """Return the record of how it ended."""
        lasted = self.uptime(now)
        return Receipt(
            name=self._launch.name,
            run_id=self._launch.run_id,
            outcome=self.outcome or Unknown("the server lost sight of it"),
            reason=self.reason,
            forced=self.forced,
            started=self.started_wall,
            ended=self.started_wall + lasted,
            lasted=lasted,
            detail=self.detail,
        )

    # ---- timers --------------------------------------------------------------------------------------------

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        self.forced = self.forced or state is State.KILLING
        self._timers = {event: at for event, at in self._timers.items() if event in TIMERS[state]}
        self._timers.pop(Event.DEADLINE_PASSED, None)
        if not self.held or not self.judged:
            self._arm_state(now)

    def _arm_state(self, now: float) -> None:
        for event in _STATE_TIMERS:
            if event in TIMERS[self.state] and event not in self._timers:
                self._arm(event, now)

    def _arm(self, event: Event, now: float) -> None:
        launch = self._launch
        window: float | None = {
            Event.UNREADY: launch.ready.timeout if launch.ready else READY_LIMIT if self._comes_up else None,
            Event.HUNG: launch.watchdog,
            Event.ORPHANED: launch.orphan.timeout,
            Event.DEADLINE_PASSED: launch.stop.timeout if self.state is State.STOPPING else KILL_PATIENCE,
        }[event]
        if window is not None:
            self._timers[event] = now + window
