"""Servers that die and come back: whenever that is, a run is executed once, and its end is told once, as it was.

What was written is believed, what was not is unknown; a process is looked for only in the boot that it belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cmapp.core.charge import Facts
from cmapp.core.checks import build
from cmapp.core.lifecycle import Action, Event, State
from cmapp.core.outcome import FAULTS, Exited, Outcome, Reason, Receipt, Signaled, Unknown
from cmapp.core.roster import Roster
from cmapp.core.run import RETURN_LEAST
from cmapp.core.wire import plain
from tests.core.charge_stories import (
    cannot_be_started,
    cuts,
    ends_by_itself,
    is_killed,
    is_stopped,
    is_unhealthy,
    left_behind,
    story,
    written,
)
from tests.core.roster_bed import BOOT, GONE, WALL, Bed, run_id

if TYPE_CHECKING:
    from collections.abc import Callable

A, E, S = Action, Event, State
UNSURE = Unknown("the server was restarted while it was being launched")
REBOOTED = Unknown("the guest was restarted while it ran")


def was_started(known: dict[str, Any]) -> bool:
    """Tell whether the file says that there was, or may have been, an application."""
    return bool(known.get("pid"))


@cuts
def test_process_is_gone_when_the_server_comes_back(tell: Callable[[], Bed], cut: int) -> None:
    """There is one receipt, with the outcome that was written, or one that is said to be unknown."""
    bed, known = left_behind(tell, cut)
    bed.now = 100.0
    bed.restart()
    bed.happen(1, E.TREE_EMPTY)
    if not was_started(known):
        assert (bed.files, bed.roster.charges) == ({}, {})
        return
    (receipt,) = written(bed)
    if "receipt" in known:
        assert receipt == build(Receipt, known["receipt"])
    else:
        unknown = GONE if "launched" in known else UNSURE
        assert plain(receipt.outcome) == known.get("outcome", plain(unknown))
        assert receipt.reason.value == known.get("stopping", "itself")
    assert bed.settled == {1}


@cuts
@pytest.mark.parametrize("times", [1, 3])
def test_process_lives_when_the_server_comes_back(tell: Callable[[], Bed], cut: int, times: int) -> None:
    """The run goes on as often as servers come and go, is executed no second time, and its end is told once."""
    bed, known = left_behind(tell, cut)
    if not was_started(known) or "outcome" in known or "receipt" in known:
        return
    bed.alive[1] = known["pid"]
    bed.started.clear()
    for _ in range(times):
        bed.now += 0.5
        bed.restart()
    bed.connect("again", manager=known["manager"])
    assert bed.launch("again", 1, resume=True).startswith("launched 1 attached")
    bed.end(1, Signaled(11))
    (receipt,) = written(bed)
    outcome: Outcome = Signaled(11) if "launched" in known else UNSURE
    assert (receipt.outcome, receipt.reason.value) == (outcome, known.get("stopping", "itself"))
    assert receipt.started == WALL + known["started"]
    assert bed.hears("again").startswith(f"exited 1 {receipt.reason.value}: ")
    assert bed.started == []


@cuts
def test_guest_is_another_boot_when_the_server_comes_back(tell: Callable[[], Bed], cut: int) -> None:
    """After a reboot a receipt is made of what was written; of a run that was at fault no success is made."""
    bed, known = left_behind(tell, cut)
    whole = tell().receipts(1)
    bed.alive[1] = known.get("pid", 0)  # a number that is somebody else's now
    bed.now = 0.5
    for _ in range(2):
        bed.restart(boot="another")
        assert (bed.actions(), bed.roster.charges) == ([], {})
    if not was_started(known):
        assert bed.files == {}
        return
    (receipt,) = written(bed)
    assert bed.settled == {1}
    if "receipt" in known:
        assert [plain(receipt)] == whole
        return
    assert plain(receipt.outcome) == known.get("outcome", plain(REBOOTED))
    assert (receipt.reason.value, receipt.detail) == (known.get("stopping", "itself"), known.get("detail", ""))
    assert receipt.forced == known.get("forced", False)
    assert receipt.lasted == known.get("ended", known["started"]) - known["started"]


def test_fault_is_not_forgotten_by_a_reboot() -> None:
    """An unhealthy run that exited with 0 when it was stopped, just before the power failed, is no success."""
    bed = is_unhealthy()
    bed.files[1] = [entry for entry in bed.files[1] if "receipt" not in entry]
    bed.settled.clear()
    bed.restart(boot="another")
    (receipt,) = written(bed)
    assert receipt.reason in FAULTS
    assert (receipt.outcome, receipt.lasted, receipt.detail) == (Exited(0), 4.0, "3 of 3 checks failed")


@pytest.mark.parametrize("settled", [False, True])
def test_receipt_survives_any_server(*, settled: bool) -> None:
    """A manager that comes to a later server, of this boot or another, hears the end once it asks, as it was."""
    for boot in (BOOT, "another"):
        bed = story()
        bed.lose("one")
        bed.end(1, Exited(3))
        before = bed.receipts(1)
        if not settled:
            bed.settled.clear()
        for _ in range(2):
            bed.restart(boot=boot)
        bed.happen(1, E.TREE_EMPTY)
        bed.connect("again")
        told = "launched 1 attached; exited 1 itself: exited with code 3"
        assert bed.launch("again", 1, resume=True) == told
        assert bed.receipts(1) == before
        assert bed.started == [1]


def test_acknowledgement_survives() -> None:
    """What was acknowledged is not kept for longer because the server was started anew."""
    bed = ends_by_itself()
    bed.wait(50.0)
    bed.restart()
    bed.wait(49.0)
    assert 1 in bed.files
    bed.wait(1.0)
    assert bed.files == {}


@pytest.mark.parametrize(
    ("state", "again"),
    [(is_stopped, A.ASK_TO_STOP), (is_killed, A.KILL_TREE)],
    ids=["stopping", "killing"],
)
def test_stop_is_begun_again(state: Callable[[], Bed], again: Action) -> None:
    """A server that finds a run that was being stopped does not know how far that came, and does it again."""
    bed = state()
    last = max(at for at, entry in enumerate(bed.files[1]) if "stopping" in entry)
    bed.files[1] = bed.files[1][: last + 1]
    bed.settled.clear()
    bed.alive[1] = 101
    bed.restart()
    assert bed.actions() == [again]
    assert bed.run(1).deadline is not None


def test_orphan_time_goes_on_over_many_servers() -> None:
    """A server that is started anew every so often does not keep an orphan for ever: it once did."""
    bed = story()
    for _ in range(6):
        bed.restart()
        bed.wait(9.0)
    assert bed.run(1).state is S.RUNNING
    bed.restart()
    bed.wait(10.0)
    assert (bed.run(1).state, bed.run(1).reason) == (S.STOPPING, Reason.MANAGER_LOST)


def test_manager_has_time_to_return_to_a_server_that_was_away_for_long() -> None:
    """An orphan whose time ran out while there was no server is stopped only if nobody comes soon after."""
    bed = story()
    bed.lose("one")
    bed.now = 1000.0
    bed.restart()
    bed.wait(9.0)
    bed.connect("again")
    assert bed.launch("again", 1, resume=True) == "launched 1 attached"
    bed.wait(1000.0)
    assert bed.run(1).state is S.RUNNING


def test_held_run_is_held_by_the_next_server() -> None:
    """Hold outlives the server, and the windows stay closed."""
    bed = story(watchdog=5.0)
    bed.hold("one")
    bed.restart()
    assert (bed.run(1).held, bed.run(1).deadline) == (True, None)


def test_names_are_taken_while_the_run_of_a_server_before_lives() -> None:
    """A new run does not begin beside one that an earlier server launched, and waits for that one's manager first."""
    bed = story()
    bed.restart()
    bed.connect("new", manager="host2")
    assert bed.launch("new", 2) == ""
    bed.wait(RETURN_LEAST - 0.1)
    assert bed.run(1).reason is Reason.ITSELF
    bed.wait(0.1)
    assert bed.run(1).reason is Reason.REPLACED
    bed.end(1)
    assert bed.hears("new") == "launched 2"


@pytest.mark.parametrize("after", [0.0, 5.0, RETURN_LEAST - 0.1])
def test_duplicate_does_not_outrun_the_manager_to_a_new_server(after: float) -> None:
    """Who connects first to a server that was away takes nothing from a manager that comes back at once."""
    bed = story()
    bed.restart()
    bed.connect("new", manager="host2")
    assert bed.launch("new", 2) == ""
    bed.wait(after)
    bed.connect("back")
    assert bed.launch("back", 1, resume=True) == "launched 1 attached"
    bed.wait(RETURN_LEAST)
    bed.answer("back")
    assert bed.hears("new").startswith("refused name-taken")
    assert bed.run(1).state is S.RUNNING


def test_run_that_was_an_orphan_already_is_replaced_at_once() -> None:
    """Nobody is waited for who was not there when the server went."""
    bed = story()
    bed.lose("one")
    bed.restart()
    bed.connect("new", manager="host2")
    bed.launch("new", 2)
    assert bed.run(1).reason is Reason.REPLACED


def test_name_is_the_living_runs() -> None:
    """Of a run that is still cleared up and one that lives, the one that lives has the name, in whatever order."""
    for order in ((1, 2), (2, 1)):
        bed = story()
        bed.happen(1, E.LEADER_ENDED, outcome=Exited(0))
        bed.files[2] = [
            {**entry, **({"launch": {**entry["launch"], "run_id": run_id(2)}} if "launch" in entry else {})}
            for entry in story().files[1]
        ]
        bed.files = {number: bed.files[number] for number in order}
        bed.alive = {1: 101, 2: 101}
        bed.restart()
        assert bed.roster.charges["web"].run_id == run_id(2)
        bed.happen(1, E.LEADER_ENDED, E.TREE_EMPTY)
        assert bed.roster.charges["web"].run_id == run_id(2)


@pytest.mark.parametrize("how", ["lost", "detached"])
def test_manager_that_returned_is_remembered(how: str) -> None:
    """What was an orphan, or left on purpose, and was found again, is missed anew when the server comes back."""
    bed = story()
    if how == "lost":
        bed.lose("one")
    else:
        bed.detach("one")
    bed.wait(30.0)
    bed.connect("two", manager="host2")
    assert bed.launch("two", 1) == "launched 1 attached"
    charge = bed.roster.charge(run_id(1))
    assert charge is not None
    assert (charge.orphaned, charge.detached) == (None, False)
    bed.now = 50.0
    bed.restart()
    assert bed.run(1).deadline == 110.0
    bed.end(1)
    bed.connect("three", manager="host2")
    bed.acknowledge("three", 1)
    assert bed.roster.archive.acknowledged(run_id(1))


@pytest.mark.parametrize("boot", [BOOT, "another"])
def test_what_could_not_be_started_leaves_nothing(boot: str) -> None:
    """A server that dies before the file of a failed launch is removed leaves no run of unknown outcome behind."""
    bed = cannot_be_started()
    assert bed.files[1]
    bed.restart(boot=boot)
    assert (bed.files, bed.roster.charges, len(bed.roster.archive)) == ({}, {}, 0)


def test_what_is_settled_is_left_alone() -> None:
    """The files of runs that are over are read, and not touched."""
    bed = ends_by_itself()
    roster = Roster(BOOT, most=5, receipts=5, retention=100.0)
    assert roster.load([Facts(bed.files[1], settled=True)], 3.0, WALL) == []
    assert roster.archive.acknowledged(run_id(1))
