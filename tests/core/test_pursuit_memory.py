"""What a pursuit remembers while its link is lost, and what it does not hold against others."""

from __future__ import annotations

import pytest

from cmapp.core.outcome import Failed, Refused, Unknown, Unreachable
from cmapp.core.pursuit import RETURNING, Action, Event, Patience, State
from tests.core.pursuit_story import BACK, GONE, pursuit_in

A, E, S = Action, Event, State


def test_a_first_launch_may_start_the_run_and_a_later_one_must_not() -> None:
    """Once the run was there, a launch that is repeated only attaches: it must never start it a second time."""
    pursuit = pursuit_in(S.GREETING)
    pursuit.meet("boot-1")
    assert (pursuit.step(E.WELCOMED, 0.0), pursuit.resume) == ((A.LAUNCH,), False)
    pursuit.step(E.LAUNCHED, 0.0)
    assert pursuit.resume


@pytest.mark.parametrize(
    ("boots", "resume"),
    [
        (["a", "a"], False),
        (["a", "b"], True),
        (["a", "b", "c"], True),
        (["a", "b", "a"], False),
        (["", "b"], False),
        (["a", ""], False),
    ],
)
def test_a_launch_that_was_not_answered(boots: list[str], *, resume: bool) -> None:
    """It may be repeated to the same boot of the guest; in another it may have run, and its end is lost."""
    pursuit = pursuit_in(S.GREETING)
    for boot in boots:
        pursuit.meet(boot)
        pursuit.step(E.WELCOMED, 0.0)
        assert pursuit.state in (S.LAUNCHING, S.REATTACHING)
        resumes = pursuit.resume
        for event in (E.LINK_LOST, E.RETRY_DUE, E.CONNECTED):
            pursuit.step(event, 0.0)
    assert resumes == resume


@pytest.mark.parametrize(
    ("boot", "words"),
    [("boot-1", "the server knows nothing of it any more"), ("boot-2", "the guest was restarted meanwhile")],
)
@pytest.mark.parametrize("reported", [False, True])
def test_a_run_that_nobody_knows_any_more(boot: str, words: str, *, reported: bool) -> None:
    """Its outcome is unknown, which is neither a refusal nor a success; a guest that was restarted is told as one."""
    pursuit = pursuit_in(S.GREETING)
    pursuit.meet("boot-1")
    for event in BACK[2:-1]:
        pursuit.step(event, 0.0)
    pursuit.meet(boot)
    pursuit.step(E.WELCOMED, 0.0)
    if reported:
        pursuit.step(E.REPORTED, 0.0)
    assert pursuit.step(E.REFUSED, 0.0, Refused("no-run", "what?")) == (A.HANG_UP, A.CONCLUDE)
    assert pursuit.verdict == Unknown(words)


def test_a_refusal_of_a_first_launch_is_one_whatever_its_code() -> None:
    """Only of a run that was there can it be said that its outcome is unknown."""
    pursuit = pursuit_in(S.LAUNCHING)
    pursuit.step(E.REFUSED, 0.0, Refused("no-run", "what?"))
    assert pursuit.verdict == Refused("no-run", "what?")


def test_a_launch_that_was_taken_back() -> None:
    """A stop that reaches the server before it has started anything is what it is before anything is connected."""
    verdicts = []
    for stops in (0, 1):
        pursuit = pursuit_in(S.LAUNCHING)
        for _ in range(stops):
            pursuit.step(E.SIGNALED, 0.0)
        pursuit.step(E.REFUSED, 0.0, Refused("stopped", "as asked"))
        verdicts.append(pursuit.verdict)
    assert verdicts == [Refused("stopped", "as asked"), Failed("it was stopped before it was launched")]


def test_a_run_that_is_held_is_not_given_up() -> None:
    """A link that is lost for long, during maintenance, is no reason to fail over; a stop makes it one again."""
    pursuit = pursuit_in(S.WATCHING, Patience(link_timeout=7))
    pursuit.held = True
    pursuit.step(E.LINK_LOST, 0.0, GONE)
    now = 0.0
    while now < 1000:
        assert pursuit.deadline is not None
        now = max(now, pursuit.deadline)
        pursuit.clock(now)
        if pursuit.state is S.RECONNECTING:
            pursuit.step(E.LINK_LOST, now, GONE)
    assert pursuit.state in RETURNING
    pursuit.step(E.SIGNALED, now)
    limit = now + 7
    while pursuit.deadline is not None:
        now = pursuit.deadline
        pursuit.clock(now)
    assert now == pytest.approx(limit)
    assert isinstance(pursuit.verdict, Unreachable)


def test_no_patience_with_a_lost_link() -> None:
    """With no time to come back, a lost link is the end at once, for its reason."""
    pursuit = pursuit_in(S.WATCHING, Patience(link_timeout=0))
    assert pursuit.step(E.LINK_LOST, 5.0, GONE) == (A.HANG_UP,)
    assert pursuit.deadline == 5.0
    assert pursuit.clock(5.0) == (A.HANG_UP, A.CONCLUDE)
    assert pursuit.verdict == Unreachable("the connection was reset; no way back within 0 ms")


# ---- a clock that is looked at too late ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "timer", "window"),
    [
        (S.CONNECTING, E.ATTEMPT_LATE, 10),
        (S.GREETING, E.ATTEMPT_LATE, 10),
        (S.REGREETING, E.ATTEMPT_LATE, 10),
        (S.WAITING, E.LIMIT_PASSED, 60),
        (S.AWAY, E.LIMIT_PASSED, 30),
        (S.WATCHING, E.ANSWER_LATE, 10),
        (S.REATTACHING, E.ANSWER_LATE, 10),
        (S.STOPPING, E.STOP_LATE, 45),
    ],
)
def test_who_overslept_does_not_judge(state: State, timer: Event, window: float) -> None:
    """A process that was stopped, or whose host stood still, gave nobody the time that it has to answer."""
    for late, fires in ((3.0, True), (3.1, False), (100_000.0, False)):
        pursuit = pursuit_in(state)
        pursuit._timers = {timer: 50.0}
        pursuit.clock(50.0 + late)
        assert (pursuit.state is not state) == fires
        assert pursuit.overslept == (0.0 if fires else pytest.approx(late))
        if not fires:
            assert pursuit._timers == {timer: 50.0 + late + window}
            pursuit.clock(50.0 + late + 1)
            assert pursuit.overslept == 0.0


def test_waiting_for_a_resolver_is_not_sleeping() -> None:
    """A name server that is down holds us up in each attempt, and must not put off the end of all patience."""
    pursuit = pursuit_in(S.RECONNECTING)
    assert pursuit.clock(40.0, waited=39.0) == (A.HANG_UP, A.HANG_UP, A.CONCLUDE)


def test_a_kill_that_was_slept_over_has_its_own_time_again() -> None:
    """The time that a kill may take is shorter than that of a stop, the second time too."""
    pursuit = pursuit_in(S.STOPPING)
    pursuit.step(E.SIGNALED, 0.0)
    pursuit._timers = {E.STOP_LATE: 15.0}
    pursuit.clock(1000.0)
    assert pursuit.deadline == 1015.0
