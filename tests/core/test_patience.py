"""The manager's patience against servers that answer late, not at all, or never come: on an invented clock.

What is promised to an administrator is a bound: within which time a hung guest is noticed, and that one which
answers in time is never given up.
"""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cmapp.core.outcome import Unreachable
from cmapp.core.pursuit import (
    KILL_MARGIN,
    RETRY_FIRST,
    RETRY_LAST,
    Action,
    Event,
    Patience,
    Pursuit,
    State,
)
from tests.core.pursuit_story import GONE, PATIENCES, RECEIPT, SECONDS

A, E, S = Action, Event, State


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
