"""The life of a run that is a unit, told by looks at the unit: what is told, in which order, and what never is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cmapp.core import unitlife as life
from cmapp.core.messages import Refusal
from cmapp.core.outcome import Exited, Outcome, Signaled, Unknown
from cmapp.core.unitlife import NO_JOB, UnitLife
from tests.core.unit_looks import (
    AGAIN,
    FREE,
    KILLED,
    ONE,
    RUNNING,
    STARTING,
    STOPPED,
    TWO,
    adopted,
    begun,
    end_of,
    kinds,
)

if TYPE_CHECKING:
    from cmapp.core.unitstate import UnitState

# ---- the start ---------------------------------------------------------------------------------------------


def test_a_job_whose_end_was_missed_is_not_waited_for() -> None:
    """After the bus was gone, or if systemd did not say which job it is, what is seen decides."""
    run = begun()
    run.job = 3
    assert run.see(FREE) == []
    run.missed()
    assert kinds(run.see(FREE)) == ["Refused"]
    run = begun()
    run.job = NO_JOB
    assert kinds(run.see(FREE)) == ["Refused"]


@pytest.mark.parametrize(
    ("state", "code", "told"),
    [
        (FREE.replace(load="not-found"), Refusal.NOT_FOUND, "there is no unit db.service"),
        (FREE.replace(load="masked"), Refusal.NOT_EXECUTABLE, "systemctl unmask db.service"),
        (FREE.replace(load="error", trouble="no good"), Refusal.NOT_EXECUTABLE, "(error): no good"),
    ],
)
def test_what_cannot_be_started_is_refused(state: UnitState, code: str, told: str) -> None:
    """Nothing is asked of systemd for a unit that is not there, and nothing is told after."""
    run = UnitLife()
    (refused,) = run.start(state)
    assert isinstance(refused, life.Refused)
    assert refused.code == code
    assert told in refused.text
    assert run.see(RUNNING) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("org.freedesktop.systemd1.NoSuchUnit", Refusal.NOT_FOUND),
        ("org.freedesktop.DBus.Error.AccessDenied", Refusal.NOT_PERMITTED),
        ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", Refusal.NOT_PERMITTED),
        ("org.freedesktop.systemd1.TransactionIsDestructive", Refusal.NOT_EXECUTABLE),
    ],
)
def test_what_systemd_does_not_take_is_refused(error: str, code: str) -> None:
    """Its reason becomes a word of the protocol, with its own words."""
    (refused,) = begun().refused(error, "because")
    assert refused == life.Refused(code, "systemd does not start it: because")


def test_it_is_launched_once_it_has_a_process_and_ready_once_it_is_active() -> None:
    """What was there before the start says nothing; a command that prepares it is a process of its own."""
    run = UnitLife()
    assert run.start(STOPPED.replace(invocation=TWO)) == []
    assert run.see(STOPPED.replace(invocation=TWO)) == []  # systemd has not taken the job yet
    assert run.see(RUNNING.replace(invocation=TWO, active="deactivating")) == []
    assert run.see(STARTING) == [life.Identified(40, ONE), life.Launched()]
    assert run.see(STARTING) == []
    assert run.see(RUNNING) == [life.Identified(42, ONE), life.Ready()]
    assert run.see(RUNNING) == []


def test_one_that_runs_is_taken_over_with_a_warning() -> None:
    """It is launched and ready at once, and it is told what to do about it."""
    run = UnitLife()
    told = run.start(RUNNING)
    assert kinds(told) == ["Noted", "Identified", "Launched", "Ready"]
    assert isinstance(told[0], life.Noted)
    assert told[0].grave
    assert "systemctl disable db.service" in told[0].text


@pytest.mark.parametrize(
    ("result", "state", "told"),
    [
        ("done", FREE.replace(unmet="ConditionPathExists=/x"), "not met: ConditionPathExists=/x"),
        ("dependency", FREE, "a unit that it requires"),
        ("canceled", FREE, "somebody cancelled"),
        ("failed", FREE.replace(active="failed", result="start-limit-hit"), "too often"),
        ("failed", FREE.replace(active="failed", result="resources"), "lacked resources"),
    ],
)
def test_what_was_not_started_is_refused_with_the_reason(result: str, state: UnitState, told: str) -> None:
    """A job that ends without any process is a refusal, and not before it has ended."""
    run = begun()
    run.job = 3
    assert run.see(state.replace(job=3)) == []
    assert run.see(state) == []
    run.job_ended(4, "done")
    assert run.see(state) == []
    run.job_ended(3, result)
    (refused,) = run.see(state)
    assert isinstance(refused, life.Refused)
    assert (refused.code, told in refused.text) == (Refusal.NOT_EXECUTABLE, True), refused.text


def test_one_that_is_over_before_it_was_seen_is_launched_first() -> None:
    """Its end is that of the main process, or of the command that came before."""
    told = begun().see(KILLED)
    assert kinds(told) == ["Identified", "Launched", "Ended"]
    assert end_of(told) == (Signaled(9), "")
    prepared = FREE.replace(active="failed", result="exit-code", invocation=ONE, command=(41, 1, 5))
    told = begun().see(prepared)
    assert told[0] == life.Identified(41, ONE)
    assert end_of(told) == (Exited(5), "it was a command that comes before its main process")


def test_systemd_that_cannot_be_asked_ends_nothing() -> None:
    """What was not begun is refused; what was goes on."""
    assert kinds(UnitLife().unreachable("gone")) == ["Refused"]
    assert begun(RUNNING).unreachable("gone") == []


# ---- the end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "outcome", "detail"),
    [
        (KILLED, Signaled(9), ""),
        (KILLED.replace(code=3, status=11, result="core-dump"), Signaled(11, core_dumped=True), ""),
        (KILLED.replace(code=1, status=3, result="exit-code"), Exited(3), ""),
        (KILLED.replace(code=1, status=0, result="exit-code"), Exited(0), "to systemd it has failed: exit-code"),
        (STOPPED.replace(code=1, status=0), Exited(0), ""),
        (KILLED.replace(result="oom-kill"), Signaled(9), "it was killed for want of memory"),
        (KILLED.replace(result="timeout"), Signaled(9), "a time that its unit file sets ran out"),
        (KILLED.replace(code=1, status=203), Exited(203), "203/EXEC is what systemd says"),
        (KILLED.replace(restarts=2, restarting=True), Signaled(9), "systemd had restarted it 2 times and gave it up"),
        (KILLED.replace(code=0, status=0), Unknown("systemd does not tell how: it has had no main process"), ""),
    ],
)
def test_the_end_is_that_of_the_main_process(state: UnitState, outcome: Outcome, detail: str) -> None:
    """What systemd says beyond it is told, and the end is told once."""
    run = begun(RUNNING)
    found, told = end_of(run.see(state))
    assert found == outcome
    assert told.startswith(detail)
    assert bool(told) == bool(detail)
    assert run.see(state) == run.see(RUNNING) == []


@pytest.mark.parametrize(
    "state",
    [
        KILLED.replace(job=7),
        KILLED.replace(active="activating", sub="auto-restart"),
        KILLED.replace(active="deactivating", sub="stop-post"),
        RUNNING.replace(active="reloading"),
        RUNNING.replace(sub="exited", main=0),
    ],
)
def test_what_systemd_is_not_through_with_is_not_over(state: UnitState) -> None:
    """A job that is to come, a restart, a stop that goes on and a unit without a process are no end."""
    assert "Ended" not in kinds(begun(RUNNING).see(state))


def test_a_stop_of_somebody_elses_is_told() -> None:
    """It is told if it is known, or the likely thing; never of our own, and of no failure."""
    cases: list[tuple[str, bool, UnitState, str]] = [
        ("stop", False, STOPPED, "somebody had systemd stop it"),
        ("?", False, STOPPED, "somebody had systemd stop it"),
        ("?", False, KILLED, ""),
        ("restart", False, STOPPED, ""),
        ("stop", True, STOPPED, ""),
        ("stop", False, KILLED.replace(result="watchdog"), "systemd did not hear its watchdog in time"),
    ]
    for by, asked, state, detail in cases:
        run = begun(RUNNING)
        run.stopped_by, run.asked_to_stop = by, asked
        assert end_of(run.see(state))[1] == detail


def test_a_start_that_was_stopped_is_told_so() -> None:
    """What never had a process, because we stopped it, was not refused by systemd."""
    run = begun()
    run.job, run.asked_to_stop = 3, True
    run.job_ended(3, "canceled")
    assert run.see(FREE) == [life.Refused(Refusal.STOPPED, "it was stopped before it was launched")]


# ---- on the way --------------------------------------------------------------------------------------------


def test_a_restart_by_systemd_is_told_with_its_cause() -> None:
    """The run goes on with another main process."""
    run = begun(RUNNING)
    assert run.see(KILLED.replace(active="activating", sub="auto-restart", restarting=True)) == []
    identified, noted = run.see(AGAIN)
    assert identified == life.Identified(43, TWO)
    assert isinstance(noted, life.Noted)
    assert noted.text == (
        "systemd restarted it, once so far: its main process was killed by signal 9 (KILL); its main process is 43 now"
    )
    assert end_of(run.see(KILLED.replace(invocation=TWO, last=43, restarts=1)))[0] == Signaled(9)


def test_a_restart_by_somebody_else_is_told() -> None:
    """It is told from one by systemd itself by the count."""
    told = begun(RUNNING).see(AGAIN.replace(restarts=0))
    assert isinstance(told[1], life.Noted)
    assert told[1].text == "somebody had systemd restart it: its main process is 43 now"


def test_another_main_process_of_the_same_start_is_told() -> None:
    """As with MAINPID of sd_notify."""
    told = begun(RUNNING).see(RUNNING.replace(main=50))
    assert told == [life.Identified(50, ONE), life.Noted("its main process is 50 now")]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (RUNNING.replace(active="reloading"), "systemd reloads it"),
        (RUNNING.replace(masked=True), "it was masked: it goes on"),
        (RUNNING.replace(sub="exited", main=0, members=("a.service", "b.service")), "parts does, a.service, b.service"),
        (RUNNING.replace(sub="exited", main=0), "its end cannot be seen: name the one"),
    ],
)
def test_what_systemd_does_is_told_once_each_time(state: UnitState, text: str) -> None:
    """And again if it comes again."""
    run = begun(RUNNING)
    for _ in range(2):
        (noted,) = run.see(state)
        assert isinstance(noted, life.Noted)
        assert text in noted.text
        assert run.see(state) == []
        run.see(RUNNING)


def test_a_unit_without_a_process_ends_with_a_part_of_it() -> None:
    """The part's outcome is the run's; after a stop of ours the end waits for all of them."""
    empty = RUNNING.replace(sub="exited", main=0, members=("part.service",))
    part = KILLED.replace(name="part.service", result="oom-kill")
    run = begun(empty)
    assert end_of(run.part_ended(part)) == (
        Signaled(9),
        "it is its part part.service; it was killed for want of memory",
    )
    assert run.part_ended(part) == []
    run = begun(empty)
    run.asked_to_stop = run.parts = True
    assert run.see(STOPPED.replace(code=1, status=0)) == run.part_ended(part) == []
    run.parts = False
    assert end_of(run.see(STOPPED.replace(code=1, status=0)))[0] == Exited(0)


def test_what_it_says_of_itself_is_told_once() -> None:
    """A status is told when it is new."""
    run = begun(RUNNING)
    assert run.see(RUNNING.replace(says="ok")) == [life.Says("ok")]
    assert run.see(RUNNING.replace(says="ok")) == []


def test_a_change_is_certain_only_if_nothing_can_come_after() -> None:
    """A unit that may be restarted, or was started anew, is looked at as a whole before it is over."""
    assert begun(RUNNING).certain(KILLED)
    assert not begun(RUNNING).certain(KILLED.replace(restarting=True))
    assert not begun(RUNNING).certain(KILLED.replace(job=1))
    assert not begun(RUNNING).certain(KILLED.replace(last=43))
    assert not begun().certain(KILLED)
    assert not adopted(ONE).certain(KILLED)
