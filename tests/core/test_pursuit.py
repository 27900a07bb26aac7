"""The manager's pursuit of a run: its table, its timers, and the stories that it tells."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from cmapp.core.outcome import Failed, Unreachable, Verdict
from cmapp.core.pursuit import LINKED, RETURNING, SEEKING, TABLE, TIMERS, Action, Event, Patience, Pursuit, State
from cmapp.errors import StateError
from tests.core.pursuit_story import GONE, pursuit_in

A, E, S = Action, Event, State
CLOCK = {E.RETRY_DUE, E.ATTEMPT_LATE, E.LIMIT_PASSED, E.OPINION_DUE, E.POLL_DUE, E.ANSWER_LATE, E.STOP_LATE}
PAIRS = list(product(State, Event))
pairs = pytest.mark.parametrize(("state", "event"), PAIRS, ids=[f"{s.value}-{e.value}" for s, e in PAIRS])
states = pytest.mark.parametrize("state", State, ids=lambda state: state.value)


def test_every_pair_is_in_the_table() -> None:
    """Every event has an entry in every state, the impossible ones too."""
    assert set(TABLE) == set(PAIRS)


ON_LINK, CALLING = {*LINKED}, {S.CONNECTING, S.GREETING, S.RECONNECTING, S.REGREETING}
WHEN: dict[Event, set[State]] = {
    E.BEGUN: {S.IDLE},
    E.CONNECTED: {S.CONNECTING, S.RECONNECTING},
    E.WELCOMED: {S.GREETING, S.REGREETING},
    E.LAUNCHED: {S.LAUNCHING, S.STOPPING, S.REATTACHING},
    E.NOT_STARTED: {S.LAUNCHING, S.STOPPING, S.REATTACHING},
    E.REFUSED: {S.GREETING, S.REGREETING, S.LAUNCHING, S.STOPPING, S.DETACHING, S.REATTACHING},
    E.REPORTED: {*ON_LINK, S.REATTACHING},
    E.EXITED: {S.WATCHING, S.STOPPING, S.DETACHING},
    E.DETACHED: {S.STOPPING, S.DETACHING},
    E.LINK_LOST: {*CALLING, *ON_LINK, S.REATTACHING},
    E.DENIED: {*CALLING, *ON_LINK, S.REATTACHING},
    E.SIGNALED: set(State),
    E.DISMISSED: set(State),
    E.BROKEN: set(State),
    E.GUEST_DOWN: {*RETURNING},
    E.RETRY_DUE: {S.WAITING, S.AWAY},
    E.ATTEMPT_LATE: CALLING,
    E.LIMIT_PASSED: {*SEEKING, *RETURNING},
    E.OPINION_DUE: {*SEEKING, *RETURNING},
    E.POLL_DUE: ON_LINK,
    E.ANSWER_LATE: {*ON_LINK, S.REATTACHING},
    E.STOP_LATE: {S.STOPPING},
}


@pytest.mark.parametrize("event", Event, ids=lambda event: event.value)
def test_each_event_has_its_time(event: Event) -> None:
    """An event can happen in these states and in no other, but for the last, which takes all and does nothing."""
    assert {state for state in State if TABLE[state, event] is not None} == WHEN[event] | {S.CONCLUDED}


@pairs
def test_steps_by_the_table(state: State, event: Event) -> None:
    """A step does what the table says; what cannot happen is an error, and changes nothing."""
    pursuit, entry = pursuit_in(state), TABLE[state, event]
    before = pursuit.deadline
    if entry is None:
        with pytest.raises(StateError, match=f"^{event.value} for a pursuit that is {state.value}$"):
            pursuit.step(event, 1.0, GONE)
        assert (pursuit.state, pursuit.deadline, pursuit.verdict) == (state, before, None)
    else:
        assert pursuit.step(event, 1.0, GONE) == entry[1]
        assert pursuit.state is entry[0]
        assert (pursuit.verdict is None) == (entry[0] is not S.CONCLUDED)


@states
def test_only_running_timers_can_fire(state: State) -> None:
    """A state has a timer exactly if the clock's event is possible in it, and CONCLUDED has none."""
    possible = {event for event in CLOCK if TABLE[state, event] is not None}
    assert TIMERS[state] == (possible if state is not S.CONCLUDED else frozenset())


@states
def test_some_timer_runs_wherever_others_are_waited_for(state: State) -> None:
    """No state waits for ever: each but the first and the last has a deadline as soon as it is entered."""
    assert (pursuit_in(state).deadline is None) == (state in (S.IDLE, S.CONCLUDED))


@pairs
def test_who_gives_up_a_link_hangs_up(state: State, event: Event) -> None:
    """A pursuit ends by hanging up and then concluding, and only so; an attempt that failed hangs up too."""
    following, actions = TABLE[state, event] or (state, ())
    ends = following is S.CONCLUDED and state is not S.CONCLUDED
    assert (actions[-2:] == (A.HANG_UP, A.CONCLUDE)) == (A.CONCLUDE in actions) == ends
    left = {S.WAITING, S.AWAY}
    assert (actions == (A.HANG_UP,)) == (following in left and state not in left)
    if event is E.LINK_LOST and TABLE[state, event] is not None and state is not S.CONCLUDED:
        assert following is (S.WAITING if state in SEEKING else S.AWAY)


@pytest.mark.parametrize(
    ("signals", "late"),
    [([0], 45), ([0, 5], 20), ([0, 5, 10, 19], 20), ([0, 40], 45)],
    ids=["stop", "kill", "impatient", "kill when it is late anyway"],
)
def test_a_stop_is_not_waited_for_longer_than_the_server_may_take(signals: list[float], late: float) -> None:
    """A kill makes the wait shorter, never longer: each further signal once gave the server another 15 s."""
    pursuit = pursuit_in(S.WATCHING, Patience(poll_interval=1000))
    actions = [pursuit.step(E.SIGNALED, at)[0] for at in signals]
    assert actions == [A.STOP, *[A.KILL] * (len(signals) - 1)]
    assert pursuit.deadline == late
    assert pursuit.clock(late) == (A.HANG_UP, A.CONCLUDE)
    assert pursuit.verdict == Unreachable("the server did not say in time that it was stopped")


def test_a_manager_that_was_asleep_still_polls() -> None:
    """Who wakes up long after a poll was due sends it, and waits for the answer; it does not judge the guest."""
    pursuit = pursuit_in(S.WATCHING)
    assert pursuit.clock(1000.0) == (A.POLL,)
    assert pursuit.deadline == 1010.0


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_pauses_between_attempts_double_up_to_a_limit(chance: float) -> None:
    """Each pause is twice as long as the one before, up to 5 s, and between half of that and all of it."""
    pursuit = Pursuit(Patience(connect_timeout=10_000), lambda: chance)
    pursuit.step(E.BEGUN, 0.0)
    pauses = []
    for _ in range(30):
        pursuit.step(E.LINK_LOST, 0.0, GONE)
        assert pursuit.deadline is not None
        pauses.append(pursuit.deadline / (0.5 + chance / 2))
        assert pursuit.clock(pursuit.deadline) == (A.CONNECT,)
        pursuit._timers[E.LIMIT_PASSED] = 10_000.0
    assert pauses[0] == pytest.approx(0.1)
    assert all(later == pytest.approx(min(5.0, 2 * pause)) for pause, later in pairwise(pauses))
    assert pauses[-1] == 5.0


@pytest.mark.parametrize("trouble", [None, Failed("x")], ids=["nothing", "something else"])
def test_no_connection_says_what_was_known_last(trouble: Verdict | None) -> None:
    """An attempt that fails for no known reason does not hide the reason of the one before."""
    pursuit = pursuit_in(S.CONNECTING)
    pursuit.step(E.LINK_LOST, 1.0, Unreachable("connection refused"))
    pursuit.clock(2.0)
    pursuit.step(E.LINK_LOST, 3.0, trouble)
    assert pursuit.clock(60.0)[-2:] == (A.HANG_UP, A.CONCLUDE)
    assert pursuit.verdict == Unreachable("no connection within 60 s: connection refused")


def test_bounds_are_sums() -> None:
    """The bound that is printed at start is what the settings add up to."""
    assert (Patience().silence, Patience().bound) == (15.0, 45.0)
    given = Patience(poll_interval=0.5, poll_timeout=2, link_timeout=4)
    assert (given.silence, given.bound) == (2.5, 6.5)
