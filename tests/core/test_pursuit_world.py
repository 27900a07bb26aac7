"""The manager's pursuit in a world where anything happens at any time: it concludes once, within its bounds."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cmapp.core.opinion import Opinion
from cmapp.core.outcome import Failed, GuestDown, NotStarted, Receipt, Refused, Verdict
from cmapp.core.patience import OPINION_LIMIT
from cmapp.core.pursuit import (
    ATTEMPT_LIMIT,
    LINKED,
    RETRY_LAST,
    TABLE,
    TIMERS,
    Action,
    Event,
    Patience,
    Pursuit,
    State,
)
from cmapp.core.reading import Word
from tests.core.pursuit_story import GONE, PATIENCES, RECEIPT, SECONDS, TICK

A, E, S = Action, Event, State
WITH_COUNSEL = st.builds(
    lambda patience, asks, pause: patience.replace(asks=asks, pause_timeout=pause), PATIENCES, st.booleans(), SECONDS
)


VERDICTS: dict[Event, Verdict] = {
    E.NOT_STARTED: NotStarted(found=True, text="a folder"),
    E.REFUSED: Refused("capacity", "full"),
    E.EXITED: RECEIPT,
    E.LINK_LOST: GONE,
    E.GUEST_DOWN: GuestDown("switched off"),
    E.DENIED: Refused("trust", "not of our authority"),
    E.BROKEN: Failed("a defect"),
}
CLOCK = {E.RETRY_DUE, E.ATTEMPT_LATE, E.LIMIT_PASSED, E.OPINION_DUE, E.POLL_DUE, E.ANSWER_LATE, E.STOP_LATE}
HAPPENS = sorted(set(Event) - CLOCK, key=lambda event: event.value)


class World(RuleBasedStateMachine):
    """A pursuit to which anything happens at any time that its table knows."""

    def __init__(self) -> None:
        """Begin with nothing done."""
        super().__init__()
        self.now = 0.0
        self.pursuit = Pursuit(Patience(), lambda: 0.5)
        self.done: list[Action] = []
        self.told: Verdict | None = None
        self.linked = self.open_poll = False
        self.heard = 0.0
        self.asked: float | None = None

    @initialize(patience=WITH_COUNSEL, chance=st.floats(0, 1), so_far=st.integers(0, 4))
    def choose(self, patience: Patience, chance: float, so_far: int) -> None:
        """Choose how patient the manager is, and how far it has come."""
        self.patience = patience
        self.pursuit = Pursuit(patience, lambda: chance)
        for event in (E.BEGUN, E.CONNECTED, E.WELCOMED, E.LAUNCHED)[:so_far]:
            self.happen(event)

    @precondition(lambda self: self.may_happen(ends=False))
    @rule(choice=st.data())
    def something_happens(self, choice: st.DataObject) -> None:
        """Something happens that can in this state, and is not the end."""
        self.happen(choice.draw(st.sampled_from(self.may_happen(ends=False))))

    @rule(really=st.integers(0, 9), choice=st.data())
    def something_ends_it(self, really: int, choice: st.DataObject) -> None:
        """Something happens that is the end, but seldom; once it has ended, anything at all may happen."""
        if really == 0:
            self.happen(choice.draw(st.sampled_from(self.may_happen(ends=True))))

    @rule(held=st.booleans())
    def is_held(self, *, held: bool) -> None:
        """A report says that the run is held, or is not."""
        self.pursuit.held = held

    @precondition(lambda self: self.asked is not None)
    @rule(word=st.sampled_from(Word))
    def somebody_answers(self, word: Word) -> None:
        """Whoever was asked about the guest says something of it."""
        self.asked = None
        self.account(self.pursuit.opine(Opinion(word, word.value), self.now))
        self.told = self.told or self.pursuit.verdict

    @rule(seconds=st.integers(1, 5 * 1024).map(lambda ticks: ticks * TICK))
    def time_passes(self, seconds: float) -> None:
        """The clock is looked at some time later, maybe long after something was due."""
        self.now += seconds
        self.look()

    @precondition(lambda self: self.pursuit.deadline is not None)
    @rule()
    def something_is_due(self) -> None:
        """The clock is looked at when something is due."""
        assert self.pursuit.deadline is not None
        self.now = max(self.now, self.pursuit.deadline)
        self.look()

    def may_happen(self, *, ends: bool) -> list[Event]:
        """Return what can happen in this state, apart from the clock, and ends the pursuit or does not."""
        rows = [(event, TABLE[self.pursuit.state, event]) for event in HAPPENS]
        return [event for event, row in rows if row is not None and (row[0] is S.CONCLUDED) == ends]

    def happen(self, event: Event) -> None:
        """Have it happen now."""
        self.account(self.pursuit.step(event, self.now, VERDICTS.get(event)))
        if self.told is None:
            self.told = self.pursuit.verdict
            own = {E.SIGNALED, E.DISMISSED, E.DETACHED}
            assert self.told is None or self.told == VERDICTS.get(event) or event in own

    def look(self) -> None:
        """Look at the clock: afterwards nothing is due any more."""
        before = dict(self.pursuit._timers)
        fired = self.pursuit.clock(self.now)
        self.account(fired)
        if min(before.values(), default=self.now + 1) > self.now:
            assert fired == ()
        self.told = self.told or self.pursuit.verdict
        assert self.pursuit.deadline is None or self.pursuit.deadline > self.now

    def account(self, actions: tuple[Action, ...]) -> None:
        """Check that actions fit what was done before."""
        for action in actions:
            if action is A.CONNECT:
                assert not self.linked
                self.linked = True
            elif action is A.HANG_UP:
                self.linked = self.open_poll = False
            elif action is A.ASK:
                assert self.patience.asks
                assert self.asked is None
                self.asked = self.now
            elif action is not A.CONCLUDE:
                assert self.linked
            if action is A.POLL:
                assert not self.open_poll
                self.open_poll = True
            self.done.append(action)
        if E.ANSWER_LATE not in self.pursuit._timers:
            self.open_poll = False

    @invariant()
    def concludes_once(self) -> None:
        """There is a verdict exactly when the pursuit has concluded, it was told once, and never changes."""
        concluded = self.pursuit.state is S.CONCLUDED
        assert self.done.count(A.CONCLUDE) == int(concluded)
        assert (self.pursuit.verdict is not None) == concluded
        assert self.pursuit.verdict == self.told
        assert self.done.count(A.ACKNOWLEDGE) == int(isinstance(self.told, Receipt))

    @invariant()
    def only_timers_of_the_state_run(self) -> None:
        """No timer of a state that was left can fire, and each state that waits has one."""
        assert self.pursuit._timers.keys() <= TIMERS[self.pursuit.state]
        assert (self.pursuit.deadline is None) == (self.pursuit.state in (S.IDLE, S.CONCLUDED))

    @invariant()
    def polls_or_waits_for_an_answer(self) -> None:
        """On a link either the next poll is due or an answer, never both and never neither."""
        linked = self.pursuit.state in (*LINKED, S.REATTACHING)
        assert len(self.pursuit._timers.keys() & {E.POLL_DUE, E.ANSWER_LATE}) == int(linked)

    def teardown(self) -> None:
        """Left to itself, with a server that says nothing any more, every pursuit concludes within its bounds."""
        if self.pursuit.state is S.IDLE:
            self.happen(E.BEGUN)
        start, self.pursuit.held = self.now, False
        while self.pursuit.deadline is not None:
            self.something_is_due()
            if self.asked is not None and self.now >= self.asked + OPINION_LIMIT:
                self.somebody_answers(Word.RUNNING)
        assert self.pursuit.state is S.CONCLUDED
        # A limit that was no matter while it was held runs from the next attempt on.
        attempt = max(RETRY_LAST + ATTEMPT_LIMIT, self.patience.poll_timeout)
        attempt += 2 * (OPINION_LIMIT + attempt) if self.patience.asks else 0.0  # one asked before, and one more
        assert self.now - start <= max(self.patience.bound, self.patience.connect_timeout) + attempt
        self.concludes_once()


TestWorld: Any = World.TestCase
TestWorld.settings = settings(max_examples=300, stateful_step_count=25)
