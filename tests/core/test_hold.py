"""A run that is held: nothing judges it, whatever its checks say, and all of it begins anew afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.lifecycle import JUDGEMENTS, Action, Event, State
from cmapp.core.outcome import Exited, Reason
from cmapp.core.rules import OrphanRules, Probe, ReadyRules, StopRules
from cmapp.core.run import Run
from tests.core.roster_bed import Bed, bed_that

if TYPE_CHECKING:
    from collections.abc import Callable

RUN_ID = "01234567-89ab-cdef-0123-456789abcdef"
A, E, S = Action, Event, State
LAUNCH = m.Launch(
    *(1, "web", RUN_ID, ("web",)),
    stop=StopRules(timeout=30.0),
    orphan=OrphanRules(60.0),
    ready=ReadyRules(Probe.TCP, "80", timeout=20.0),
    watchdog=5.0,
)
LIVELY = [S.READYING, S.RUNNING]
lively = pytest.mark.parametrize("state", LIVELY, ids=lambda state: state.value)


def held_in(state: State) -> Run:
    """Return a run that has been held since second 1, in that state, and that nobody watches."""
    run = Run(LAUNCH, 0.0, 0.0)
    for event in (E.SPAWNED, E.READY)[: 1 + (state is S.RUNNING)]:
        run.step(event, 0.0)
    run.orphan(0.5)
    assert run.deadline is not None
    run.hold(1.0, on=True, orphan=True)
    return run


@lively
@pytest.mark.parametrize("event", JUDGEMENTS, ids=lambda event: event.value)
def test_judgement_does_not_reach_it(state: State, event: Event) -> None:
    """A check that fails, a watchdog that is late, a manager that is lost: a held run hears of none."""
    run = held_in(state)
    assert run.step(event, 2.0, detail="bad") == ()
    assert (run.state, run.reason, run.detail) == (state, Reason.ITSELF, "")


@lively
def test_no_clock_runs_against_it(state: State) -> None:
    """Nothing is due for as long as it is held, whatever it does meanwhile and whoever is lost."""
    run = held_in(state)
    run.beat(2.0)
    run.orphan(3.0)
    run.found()
    run.orphan(4.0)
    run.resume(5.0, left=False, orphaned=4.0)
    assert run.deadline is None
    assert run.clock(1e9) is None


def test_becoming_ready_opens_no_window() -> None:
    """A run that becomes ready while it is held is told to be, and not watched for that."""
    run = held_in(S.READYING)
    assert run.step(E.READY, 2.0) == (A.TELL_READY,)
    assert (run.state, run.deadline) == (S.RUNNING, None)


def test_launch_that_is_held_at_once() -> None:
    """One that is held before its command runs is not judged afterwards either."""
    run = Run(LAUNCH, 0.0, 0.0)
    run.orphan(0.5)
    run.hold(1.0, on=True, orphan=True)
    assert run.deadline is None
    run.step(E.SPAWNED, 2.0)
    assert (run.state, run.deadline) == (S.READYING, None)


@lively
@pytest.mark.parametrize("orphan", [False, True], ids=["watched", "orphan"])
def test_every_window_begins_anew_afterwards(state: State, *, orphan: bool) -> None:
    """Who is no longer held gets all of its time, whatever was over while it was."""
    run = held_in(state)
    run.hold(1000.0, on=False, orphan=orphan)
    due = {E.HUNG: 1005.0, **({E.UNREADY: 1020.0} if state is S.READYING else {})}
    assert run._timers == due | ({E.ORPHANED: 1060.0} if orphan else {})


@lively
@pytest.mark.parametrize("event", JUDGEMENTS, ids=lambda event: event.value)
def test_judged_again_afterwards(state: State, event: Event) -> None:
    """Only while it is held is it spared."""
    run = held_in(state)
    run.hold(10.0, on=False, orphan=True)
    assert run.step(event, 11.0) == (A.ASK_TO_STOP,)
    assert run.reason is JUDGEMENTS[event]


@lively
@pytest.mark.parametrize("event", [E.STOP_WANTED, E.KILL_WANTED], ids=lambda event: event.value)
def test_stop_on_request_is_obeyed(state: State, event: Event) -> None:
    """Its manager may stop it, and then it is stopped within its rules."""
    run = held_in(state)
    run.step(event, 2.0)
    assert run.reason is Reason.ASKED
    assert run.deadline == (32.0 if event is E.STOP_WANTED else 12.0)


@lively
def test_its_own_end_is_told(state: State) -> None:
    """A held run that ends by itself has ended, and is cleared up after as any."""
    run = held_in(state)
    assert A.TELL_ENDED in run.step(E.LEADER_ENDED, 2.0, outcome=Exited(3))
    assert run.deadline == 12.0


@pytest.mark.parametrize("state", [S.STOPPING, S.KILLING, S.CLEARING], ids=lambda state: state.value)
def test_hold_stops_no_stop(state: State) -> None:
    """What is being ended is ended: holding it neither stops nor restarts its deadline."""
    run = held_in(S.RUNNING)
    run.hold(2.0, on=False, orphan=False)
    run.step({S.STOPPING: E.STOP_WANTED, S.KILLING: E.KILL_WANTED, S.CLEARING: E.LEADER_ENDED}[state], 2.0)
    before = run.deadline
    for on in (True, False):
        run.hold(3.0, on=on, orphan=True)
        assert (run.state, run.deadline) == (state, before)


def test_server_that_comes_back_still_ends_a_held_run() -> None:
    """The window of a stop begins anew with a new server, held or not; no other does."""
    run = Run(LAUNCH, 0.0, 0.0, S.STOPPING)
    run.held = True
    run.resume(100.0, left=False, orphaned=None)
    assert run._timers == {E.DEADLINE_PASSED: 130.0}


# ---- by the roster -----------------------------------------------------------------------------------------


def test_hold_and_resume() -> None:
    """Hold is written, told to the checks and answered; any link of the manager's may ask for it."""
    bed = bed_that()
    bed.launch("one", 1)
    bed.connect("admin")
    for on in (True, False):
        assert bed.hold("admin", on=on) == "done"
        assert bed.held[-1] == (1, on)
        assert bed.files[1][-1] == {"held": on}
        assert bed.run(1).held is on


NOT_HERE = "refused no-run: no application web runs here"


def nobodys(bed: Bed) -> None:
    """Nothing runs."""


def anothers(bed: Bed) -> None:
    """Another host's manager launched it."""
    bed.connect("two", manager="host2")
    bed.launch("two", 1)


def ended(bed: Bed) -> None:
    """It has ended, and is being cleared up."""
    bed.launch("one", 1)
    bed.happen(1, E.LEADER_ENDED, outcome=Exited(0))
    bed.hears("one")


@pytest.mark.parametrize("before", [nobodys, anothers, ended], ids=lambda before: before.__name__)
def test_hold_of_what_is_not_there(before: Callable[[Bed], None]) -> None:
    """Only what lives, and is the manager's own, can be held; what is another's is as if it were not there."""
    bed = bed_that()
    before(bed)
    assert bed.hold("one") == NOT_HERE
    assert bed.held == []


def test_resumed_orphan_gets_its_whole_time() -> None:
    """A run that lost its manager while it was held has its orphan timeout from when it is resumed."""
    bed = bed_that()
    bed.launch("one", 1)
    bed.hold("one")
    bed.lose("one")
    bed.wait(1000.0)
    bed.connect("admin")
    bed.hold("admin", on=False)
    bed.wait(59.0)
    assert bed.run(1).state is S.RUNNING
    bed.wait(1.0)
    assert bed.run(1).state is S.STOPPING


@pytest.mark.parametrize("state", ["watched", "detached"])
def test_resumed_run_that_is_no_orphan(state: str) -> None:
    """Resuming makes no orphan of a run that is watched, or was left on purpose."""
    bed = bed_that()
    bed.launch("one", 1)
    if state == "detached":
        bed.detach("one")
    bed.connect("admin")
    bed.hold("admin")
    bed.hold("admin", on=False)
    assert bed.run(1).deadline is None
