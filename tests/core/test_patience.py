"""The manager's patience against servers that answer late, not at all, or never come: on an invented clock.

What is promised to an administrator is a bound: within which time a hung guest is noticed, and that one which
answers in time is never given up.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cmapp.core.opinion import OPINION_LIMIT, Opinion, Word
from cmapp.core.outcome import Failed, GuestDown, NotStarted, Receipt, Refused, Unreachable, Verdict
from cmapp.core.pursuit import (
    ATTEMPT_LIMIT,
    KILL_MARGIN,
    LINKED,
    RETRY_FIRST,
    RETRY_LAST,
    TABLE,
    TIMERS,
    Action,
    Event,
    Patience,
    Pursuit,
    State,
)
from tests.core.pursuit_story import GONE, RECEIPT

A, E, S = Action, Event, State
TICK = 1 / 1024  # everything below is a multiple of it, so that sums are exact
SECONDS = st.integers(1, 60 * 1024).map(lambda ticks: ticks * TICK)
PATIENCES = st.builds(
    Patience,
    poll_interval=SECONDS,
    poll_timeout=SECONDS,
    connect_timeout=SECONDS,
    stop_timeout=SECONDS,
    link_timeout=SECONDS,
)
WITH_COUNSEL = st.builds(
    lambda patience, asks, pause: patience.replace(asks=asks, pause_timeout=pause), PATIENCES, st.booleans(), SECONDS
)


def launching(patience: Patience) -> Pursuit:
    """Return a pursuit that launches at second 0."""
    pursuit = Pursuit(patience, lambda: 1.0)
    for event in (E.BEGUN, E.CONNECTED, E.WELCOMED):
        pursuit.step(event, 0.0)
    return pursuit


@given(PATIENCES, st.lists(st.tuples(st.integers(0, 1023), st.booleans()), max_size=30), st.data())
def test_who_answers_in_time_is_not_given_up(
    patience: Patience, answers: list[tuple[int, bool]], data: st.DataObject
) -> None:
    """However late within the timeout each poll is answered, the run is watched on; its end is what is told."""
    pursuit = launching(patience)
    last = 0.0
    launched_after = data.draw(st.integers(0, len(answers)))
    for number, (part, answered_twice) in enumerate(answers):
        if number == launched_after:
            pursuit.step(E.LAUNCHED, pursuit.deadline or 0.0)
        assert pursuit.deadline is not None
        polled = pursuit.deadline
        assert polled - last <= patience.silence  # what a server may take for the silence of a hung manager
        last = polled
        assert pursuit.clock(polled) == (A.POLL,)
        now = polled + patience.poll_timeout * part / 1024
        assert pursuit.clock(now) == ()
        for _ in range(1 + answered_twice):
            pursuit.step(E.REPORTED, now)
        assert pursuit.deadline == now + patience.poll_interval
    if pursuit.state is S.LAUNCHING:
        pursuit.step(E.LAUNCHED, 1e6)
    pursuit.step(E.EXITED, 1e6, RECEIPT)
    assert pursuit.verdict == RECEIPT


@given(PATIENCES, st.lists(st.integers(0, 1023), max_size=10), st.sampled_from([S.LAUNCHING, S.WATCHING, S.STOPPING]))
@example(Patience(), [], S.LAUNCHING)
@example(Patience(), [1023], S.WATCHING)
def test_who_falls_silent_is_noticed_in_time(patience: Patience, answers: list[int], state: State) -> None:
    """From the last report, or the launch, a loss takes `silence` and not a tick more or less, in every state.

    Nor does it take a tick more than `bound` to give up. Only a stop that the server does not carry out may end the
    wait sooner.
    """
    pursuit = launching(patience)
    heard = 0.0
    if state is not S.LAUNCHING:
        pursuit.step(E.LAUNCHED, 0.0)
    for part in answers:
        assert pursuit.deadline is not None
        heard = pursuit.deadline + patience.poll_timeout * part / 1024
        pursuit.clock(pursuit.deadline)
        pursuit.step(E.REPORTED, heard)
    noticed, stopped = heard + patience.silence, heard + patience.stop_timeout + KILL_MARGIN
    assume(noticed != stopped)
    if state is S.STOPPING:
        pursuit.step(E.SIGNALED, heard)
    lost = None
    while pursuit.deadline is not None:
        now = pursuit.deadline
        pursuit.clock(now)
        if lost is None and pursuit.state is S.AWAY:
            lost = now
    late = state is S.STOPPING and stopped < noticed
    assert (lost, now) == ((None, stopped) if late else (noticed, heard + patience.bound))
    assert isinstance(pursuit.verdict, Unreachable)


@given(PATIENCES, st.data())
def test_link_timeout_is_kept(patience: Patience, data: st.DataObject) -> None:
    """However attempts to come back fail, and however far they come, it is given up when its time has passed."""
    pursuit = launching(patience)
    pursuit.step(E.LAUNCHED, 0.0)
    pursuit.step(E.LINK_LOST, 1.0, GONE)
    now, attempts, onward = 1.0, 0, {S.RECONNECTING: E.CONNECTED, S.REGREETING: E.WELCOMED, S.REATTACHING: E.SIGNALED}
    while pursuit.verdict is None:
        due = pursuit.deadline
        assert due is not None
        assert now < due <= 1 + patience.link_timeout
        after = data.draw(st.none() | SECONDS) if pursuit.state in onward else None
        if after is not None and now + after < due:
            now += after
            goes_on = data.draw(st.booleans())
            pursuit.step(onward[pursuit.state] if goes_on else E.LINK_LOST, now, GONE)
        else:
            now = due
            attempts += pursuit.clock(now).count(A.CONNECT)
        assume(attempts < 200)
    assert now == 1 + patience.link_timeout


@given(PATIENCES, st.data())
def test_connect_timeout_is_kept(patience: Patience, data: st.DataObject) -> None:
    """Whether attempts fail at once, late or never, the last word is said when the limit has passed, not later."""
    pursuit = Pursuit(patience, lambda: data.draw(st.floats(0, 1)))
    now, attempts = 0.0, 0
    pursuit.step(E.BEGUN, now)
    while pursuit.verdict is None:
        fails_after = data.draw(st.none() | SECONDS) if pursuit.state in (S.CONNECTING, S.GREETING) else None
        due = pursuit.deadline
        assert due is not None
        assert now < due <= patience.connect_timeout
        if fails_after is not None and now + fails_after < due:
            now += fails_after
            if pursuit.state is S.CONNECTING and data.draw(st.booleans()):
                pursuit.step(E.CONNECTED, now)
            else:
                pursuit.step(E.LINK_LOST, now, GONE)
        else:
            now = due
            attempts += pursuit.clock(now).count(A.CONNECT)
        assume(attempts < 200)
    assert now == patience.connect_timeout
    assert isinstance(pursuit.verdict, Unreachable)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_pauses_are_left_to_chance_within_bounds(chances: list[float]) -> None:
    """Many managers that lost one host do not come back as one: half of each pause is up to chance."""
    chance = iter(chances)
    pursuit = Pursuit(Patience(connect_timeout=1e6), lambda: next(chance))
    pursuit.step(E.BEGUN, 0.0)
    for attempt, drawn in enumerate(chances):
        pursuit.step(E.LINK_LOST, 0.0, GONE)
        longest = min(RETRY_LAST, RETRY_FIRST * 2**attempt)
        pause = pursuit._timers[E.RETRY_DUE]
        assert longest / 2 <= pause <= longest
        assert pause == pytest.approx(longest / 2 * (1 + drawn))
        pursuit.step(E.RETRY_DUE, 0.0)


# ---- anything that can happen ------------------------------------------------------------------------------

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
