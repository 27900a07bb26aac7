"""The manager's pursuit of a run: its table, its timers, and the stories that it tells."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from cmapp.core.outcome import Exited, Failed, NotStarted, Reason, Receipt, Refused, Unreachable, Verdict
from cmapp.core.pursuit import TABLE, TIMERS, Action, Event, Patience, Pursuit, State
from cmapp.errors import StateError

A, E, S = Action, Event, State
RECEIPT = Receipt(
    name="web",
    run_id="01234567-89ab-cdef-0123-456789abcdef",
    outcome=Exited(3),
    reason=Reason.ITSELF,
    started=0,
    ended=0,
    lasted=0,
)
GONE = Unreachable("the connection was reset")
CLOCK = {E.RETRY_DUE, E.ATTEMPT_LATE, E.LIMIT_PASSED, E.POLL_DUE, E.ANSWER_LATE, E.STOP_LATE}
LINKED = [E.BEGUN, E.CONNECTED, E.WELCOMED, E.LAUNCHED]
WAYS: dict[State, list[Event]] = {
    S.IDLE: [],
    S.CONNECTING: LINKED[:1],
    S.WAITING: [E.BEGUN, E.LINK_LOST],
    S.GREETING: LINKED[:2],
    S.LAUNCHING: LINKED[:3],
    S.WATCHING: LINKED,
    S.STOPPING: [*LINKED, E.SIGNALED],
    S.CONCLUDED: [E.BROKEN],
}

PAIRS = list(product(State, Event))
pairs = pytest.mark.parametrize(("state", "event"), PAIRS, ids=[f"{s.value}-{e.value}" for s, e in PAIRS])
states = pytest.mark.parametrize("state", State, ids=lambda state: state.value)


def pursuit_in(state: State, patience: Patience | None = None) -> Pursuit:
    """Return a pursuit that came to that state at second 0, with the longest possible pauses."""
    pursuit = Pursuit(patience or Patience(), lambda: 1.0)
    for event in WAYS[state]:
        pursuit.step(event, 0.0, Failed("a defect"))
    assert pursuit.state is state
    return pursuit


def test_every_pair_is_in_the_table() -> None:
    """Every event has an entry in every state, the impossible ones too."""
    assert set(TABLE) == set(PAIRS)


SEEKING, ON_LINK = {S.CONNECTING, S.WAITING, S.GREETING}, {S.LAUNCHING, S.WATCHING, S.STOPPING}
WHEN: dict[Event, set[State]] = {
    E.BEGUN: {S.IDLE},
    E.CONNECTED: {S.CONNECTING},
    E.WELCOMED: {S.GREETING},
    E.LAUNCHED: {S.LAUNCHING, S.STOPPING},
    E.NOT_STARTED: {S.LAUNCHING, S.STOPPING},
    E.REFUSED: {S.GREETING, S.LAUNCHING, S.STOPPING},
    E.REPORTED: ON_LINK,
    E.EXITED: {S.WATCHING, S.STOPPING},
    E.LINK_LOST: {S.CONNECTING, S.GREETING, *ON_LINK},
    E.DENIED: {S.CONNECTING, S.GREETING, *ON_LINK},
    E.SIGNALED: set(State),
    E.BROKEN: set(State),
    E.RETRY_DUE: {S.WAITING},
    E.ATTEMPT_LATE: {S.CONNECTING, S.GREETING},
    E.LIMIT_PASSED: SEEKING,
    E.POLL_DUE: ON_LINK,
    E.ANSWER_LATE: ON_LINK,
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
    assert (actions == (A.HANG_UP,)) == (following is S.WAITING and state is not S.WAITING)
    assert event is not E.LINK_LOST or TABLE[state, event] is None or following in (S.WAITING, S.CONCLUDED)


# A story is what happens at which second, and what comes of it. None as event is a look at the clock.
Step = tuple[float, Event | Verdict | None, State, list[Action], float | None]
BEGIN: list[Step] = [
    (0, E.BEGUN, S.CONNECTING, [A.CONNECT], 10),
    (1, E.CONNECTED, S.GREETING, [A.SAY_HELLO], 10),
    (2, E.WELCOMED, S.LAUNCHING, [A.LAUNCH], 7),
]
WATCH: list[Step] = [*BEGIN, (3, E.LAUNCHED, S.WATCHING, [], 7)]
END = [A.HANG_UP, A.CONCLUDE]
STORIES: dict[str, tuple[list[Step], Verdict]] = {
    "the application exits": (
        [*WATCH, (4, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None)],
        RECEIPT,
    ),
    "the command is not there": (
        [*BEGIN, (3, NotStarted(found=False, text="no x"), S.CONCLUDED, END, None)],
        NotStarted(found=False, text="no x"),
    ),
    "the launch is refused": (
        [*BEGIN, (3, Refused("capacity", "full"), S.CONCLUDED, END, None)],
        Refused("capacity", "full"),
    ),
    "the version is refused": (
        [*BEGIN[:2], (3, Refused("version", "old"), S.CONCLUDED, END, None)],
        Refused("version", "old"),
    ),
    "polls are answered, then one is not": (
        [
            *WATCH,
            (6.9, None, S.WATCHING, [], 7),
            (7, None, S.WATCHING, [A.POLL], 17),
            (16.9, E.REPORTED, S.WATCHING, [], 21.9),
            (21.9, None, S.WATCHING, [A.POLL], 31.9),
            (31.8, None, S.WATCHING, [], 31.9),
            (31.9, None, S.CONCLUDED, END, None),
        ],
        Unreachable("no answer to a poll within 10 s"),
    ),
    "the server goes silent while it launches": (
        [*BEGIN, (7, None, S.LAUNCHING, [A.POLL], 17), (17, None, S.CONCLUDED, END, None)],
        Unreachable("no answer to a poll within 10 s"),
    ),
    "a report that nobody waited for changes nothing": (
        [*WATCH, (5, E.REPORTED, S.WATCHING, [], 7), (7, None, S.WATCHING, [A.POLL], 17)],
        GONE,
    ),
    "a poll waits over the launch": (
        [*BEGIN, (7, None, S.LAUNCHING, [A.POLL], 17), (8, E.LAUNCHED, S.WATCHING, [], 17)],
        GONE,
    ),
    "the link is lost": ([*WATCH, (4, GONE, S.CONCLUDED, END, None)], GONE),
    "the guest still boots": (
        [
            (0, E.BEGUN, S.CONNECTING, [A.CONNECT], 10),
            (1, Unreachable("connection refused"), S.WAITING, [A.HANG_UP], 1.1),
            (1.1, None, S.CONNECTING, [A.CONNECT], 11.1),
            (2.1, Unreachable("connection refused"), S.WAITING, [A.HANG_UP], 2.3),
            (2.3, None, S.CONNECTING, [A.CONNECT], 12.3),
            (12.3, None, S.WAITING, [A.HANG_UP], 12.7),
            (12.7, None, S.CONNECTING, [A.CONNECT], 22.7),
            (13, E.CONNECTED, S.GREETING, [A.SAY_HELLO], 22.7),
            (14, E.WELCOMED, S.LAUNCHING, [A.LAUNCH], 19),
        ],
        GONE,
    ),
    "a guest that accepts and says nothing": (
        [*BEGIN[:2], (10, None, S.WAITING, [A.HANG_UP], 10.1), (60, None, S.CONCLUDED, [A.CONNECT, *END], None)],
        Unreachable("no connection within 60 s: no answer within 10 s"),
    ),
    "trust is denied": (
        [(0, E.BEGUN, S.CONNECTING, [A.CONNECT], 10), (1, Refused("trust", "no"), S.CONCLUDED, END, None)],
        Refused("trust", "no"),
    ),
    "is stopped before it is launched": (
        [*BEGIN[:2], (2, E.SIGNALED, S.CONCLUDED, END, None)],
        Failed("it was stopped before it was launched"),
    ),
    "is stopped while it is launched": (
        [
            *BEGIN,
            (3, E.SIGNALED, S.STOPPING, [A.STOP], 7),
            (4, E.LAUNCHED, S.STOPPING, [], 7),
            (5, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None),
        ],
        RECEIPT,
    ),
    "is stopped and takes its time": (
        [
            *WATCH,
            (4, E.SIGNALED, S.STOPPING, [A.STOP], 7),
            (7, None, S.STOPPING, [A.POLL], 17),
            (8, E.REPORTED, S.STOPPING, [], 13),
            (13, None, S.STOPPING, [A.POLL], 23),
            (14, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None),
        ],
        RECEIPT,
    ),
    "the guest hangs while it is stopped": (
        [
            *WATCH,
            (4, E.SIGNALED, S.STOPPING, [A.STOP], 7),
            (7, None, S.STOPPING, [A.POLL], 17),
            (17, None, S.CONCLUDED, END, None),
        ],
        Unreachable("no answer to a poll within 10 s"),
    ),
    "breaks by a defect of its own": (
        [*WATCH, (4, Failed("a defect"), S.CONCLUDED, END, None), (5, RECEIPT, S.CONCLUDED, [], None)],
        Failed("a defect"),
    ),
}
MEANT: dict[type[Verdict], Event] = {
    Receipt: E.EXITED,
    NotStarted: E.NOT_STARTED,
    Unreachable: E.LINK_LOST,
    Failed: E.BROKEN,
}


def event_of(verdict: Verdict) -> Event:
    """Return the event that comes with the verdict."""
    if isinstance(verdict, Refused):
        return E.DENIED if verdict.code == "trust" else E.REFUSED
    return MEANT[type(verdict)]


@pytest.mark.parametrize("name", STORIES)
def test_stories(name: str) -> None:
    """What happens leads step by step to what is done, until when, and to one verdict."""
    steps, verdict = STORIES[name]
    pursuit = Pursuit(Patience(), lambda: 1.0)
    for now, event, state, actions, deadline in steps:
        if event is None:
            due = pursuit.deadline
            done = pursuit.clock(due if due is not None and due == pytest.approx(now) else now)
        elif isinstance(event, Event):
            done = pursuit.step(event, now)
        else:
            done = pursuit.step(event_of(event), now, event)
        assert (now, event, pursuit.state, list(done)) == (now, event, state, actions)
        assert pursuit.deadline == (None if deadline is None else pytest.approx(deadline))
    if pursuit.state is not S.CONCLUDED:
        pursuit.step(E.LINK_LOST, 100.0, GONE)
    assert pursuit.verdict == verdict
    assert pursuit.step(E.BROKEN, 101.0, Failed("later")) == ()
    assert pursuit.verdict == verdict


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


def test_silence_is_one_interval_and_one_timeout() -> None:
    """The bound that is printed at start is what the settings add up to."""
    assert Patience().silence == 15.0
    assert Patience(poll_interval=0.5, poll_timeout=2).silence == 2.5
