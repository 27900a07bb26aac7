"""Managers that are lost, that leave, and that return: what becomes of their runs, by every clock of the server."""

from __future__ import annotations

import pytest

from cmapp.core.lifecycle import Event, State
from cmapp.core.outcome import Exited, Reason, Signaled
from cmapp.core.rules import OrphanAction, OrphanRules, Probe, ReadyRules
from tests.core.roster_bed import WALL, bed_that, run_id

E, S = Event, State


def test_lost_manager_returns_in_time() -> None:
    """A manager that is back within the orphan timeout finds its run as it was."""
    bed = bed_that()
    bed.launch("one", 1)
    bed.lose("one")
    bed.wait(59.0)
    bed.connect("again")
    assert bed.launch("again", 1, resume=True) == "launched 1 attached"
    bed.wait(1000.0)
    assert bed.run(1).state is S.RUNNING


def test_lost_manager_does_not_return() -> None:
    """An orphan is stopped when its time is over, and its receipt is kept for whoever asks."""
    bed = bed_that()
    bed.launch("one", 1)
    bed.lose("one")
    bed.wait(60.0)
    assert bed.run(1).state is S.STOPPING
    bed.end(1, Signaled(15))
    bed.connect("late")
    told = "launched 1 attached; exited 1 manager-lost: was killed by signal 15 (TERM)"
    assert bed.launch("late", 1, resume=True) == told


@pytest.mark.parametrize("how", ["keep", "detached", "held"])
def test_who_has_no_time_limit(how: str) -> None:
    """What is to be kept, was left on purpose, or is held, goes on without a manager for as long as it takes."""
    bed = bed_that()
    orphan = OrphanRules(1.0, OrphanAction.KEEP if how == "keep" else OrphanAction.STOP)
    bed.launch("one", 1, orphan=orphan)
    if how == "detached":
        assert bed.detach("one") == "done"
    if how == "held":
        assert bed.hold("one") == "done"
    bed.lose("one")
    bed.wait(1e6)
    assert bed.run(1).state is S.RUNNING
    charge = bed.roster.charge(run_id(1))
    assert charge is not None
    assert (charge.detached, charge.orphaned) == (how == "detached", 0.0)


def test_detached_manager_has_nothing_more_to_say_about_it() -> None:
    """After `detach` the link is bound to nothing: a stop, a loss or a second detach changes nothing."""
    bed = bed_that()
    bed.launch("one", 1)
    assert [bed.detach("one"), bed.detach("one"), bed.stop("one", kill=True)] == ["done"] * 3
    bed.lose("one")
    assert (bed.run(1).state, bed.run(1).deadline) == (S.RUNNING, None)


def test_detached_run_is_any_run_again_once_it_is_found() -> None:
    """Whoever attaches to a detached run answers for it, and is missed when lost."""
    bed = bed_that()
    bed.launch("one", 1)
    bed.detach("one")
    bed.connect("two")
    assert bed.launch("two", 1) == "launched 1 attached"
    bed.lose("two")
    bed.wait(60.0)
    assert bed.run(1).state is S.STOPPING


def test_manager_that_is_lost_while_its_command_is_prepared() -> None:
    """The launch goes on, nobody is told, and it is an orphan from the loss on."""
    bed = bed_that(slow=True)
    bed.launch("one", 1)
    bed.lose("one")
    bed.now = 5.0
    bed.execute(1)
    assert bed.run(1).deadline == 60.0
    bed.end(1, Exited(2))
    assert bed.receipts(1)[0]["outcome"] == {"type": "exited", "code": 2}


def test_readiness_is_told_and_told_again_to_who_attaches() -> None:
    """`ready` follows `launched` where there is something to be ready for, also for a manager that comes later."""
    bed = bed_that()
    assert bed.launch("one", 1, ready=ReadyRules(Probe.NOTIFY)) == "launched 1"
    bed.connect("early", instance="one")
    assert bed.launch("early", 1) == "launched 1 attached"
    bed.happen(1, E.READY)
    assert bed.hears("early") == "ready 1"
    bed.connect("late", instance="one")
    assert bed.launch("late", 1) == "launched 1 attached; ready 1"


def test_what_keeps_it_from_being_ready_is_told() -> None:
    """A run that does not become ready in time is stopped, with the last that its probe met."""
    bed = bed_that()
    bed.launch("one", 1, ready=ReadyRules(Probe.TCP, "80", timeout=20.0))
    bed.roster.clock(20.0, WALL, lambda name: f"{name[-1]}: port 80 refuses")
    assert (bed.run(1).reason, bed.run(1).detail) == (Reason.NOT_READY, "1: port 80 refuses")


def test_watchdog_that_is_fed_goes_on() -> None:
    """A run that beats is not judged; one that stops beating is, from its last beat on."""
    bed = bed_that()
    bed.launch("one", 1, watchdog=10.0)
    for _ in range(5):
        bed.wait(9.0)
        bed.roster.beat(run_id(1), bed.now)
    bed.wait(9.0)
    assert bed.run(1).state is S.RUNNING
    bed.wait(1.0)
    assert (bed.run(1).state, bed.run(1).reason) == (S.STOPPING, Reason.HUNG)


def test_beats_and_holds_pile_up_nothing() -> None:
    """An application that beats as fast as it can takes no memory of the server's: each beat once did."""
    bed = bed_that()
    bed.launch("one", 1, watchdog=1000.0)
    for number in range(1000):
        bed.roster.beat(run_id(1), number / 1000)
        bed.hold("one", on=number % 2 == 0)
    assert len(bed.roster._custody._alarms) < 10
