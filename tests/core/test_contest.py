"""Who may take whose name: a launch that meets a run of its name, or its own, in every state that that can be in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cmapp.core.lifecycle import Action, Event, State
from cmapp.core.outcome import Exited
from cmapp.core.rules import OnExisting
from tests.core.roster_bed import Bed, bed_with_a_run

if TYPE_CHECKING:
    from collections.abc import Callable

A, E, S = Action, Event, State
REPLACE, ATTACH, REFUSE = OnExisting.REPLACE, OnExisting.ATTACH, OnExisting.REFUSE
every = pytest.mark.parametrize("on_existing", OnExisting, ids=lambda word: word.value)

RUNS_ALREADY = "refused name-taken: an application of the name web runs already"
WATCHED = "refused name-taken: an application of the name web is already watched by manager host1"
HELD = "refused name-taken: web is held: it is not replaced until it is resumed"
WAITS = ""


# ---- another run of the same name --------------------------------------------------------------------------


def answering(bed: Bed) -> None:
    """Its manager is there."""


def lost(bed: Bed) -> None:
    """Its manager is gone."""
    bed.lose("old")


def detached(bed: Bed) -> None:
    """Its manager left it on purpose."""
    assert bed.detach("old") == "done"


def held(bed: Bed) -> None:
    """It is held, and its manager is gone."""
    bed.hold("old")
    bed.lose("old")


def being_stopped(bed: Bed) -> None:
    """Its manager stops it, and is there to see the end."""
    bed.stop("old")


def stopped_as_an_orphan(bed: Bed) -> None:
    """It is being stopped because its manager did not return."""
    bed.lose("old")
    bed.wait(60.0)
    assert bed.run(1).state is S.STOPPING


def being_cleared(bed: Bed) -> None:
    """It has ended by itself, and something that it started is left."""
    bed.happen(1, E.LEADER_ENDED, outcome=Exited(0))
    bed.hears("old")


# How the run is, what the launch of run 2 wants, what it hears at once, and once the run before has ended.
CASES: list[tuple[Callable[[Bed], None], OnExisting, bool, str, str]] = [
    (lost, REPLACE, False, WAITS, "launched 2"),
    (lost, ATTACH, False, "launched 1 attached", "exited 1 itself: exited with code 0"),
    (lost, REFUSE, False, RUNS_ALREADY, ""),
    (detached, REPLACE, False, WAITS, "launched 2"),
    (detached, ATTACH, False, "launched 1 attached", "exited 1 itself: exited with code 0"),
    (detached, REFUSE, False, RUNS_ALREADY, ""),
    (held, REPLACE, False, HELD, ""),
    (held, ATTACH, False, "launched 1 attached", "exited 1 itself: exited with code 0"),
    (held, REFUSE, False, RUNS_ALREADY, ""),
    (held, REPLACE, True, HELD, ""),
    (answering, REPLACE, False, WAITS, "launched 2"),
    (answering, ATTACH, False, WAITS, "launched 2"),
    (answering, REFUSE, False, WAITS, "launched 2"),
    (answering, REPLACE, True, WAITS, "launched 2"),
    (answering, ATTACH, True, "launched 1 attached", "exited 1 itself: exited with code 0"),
    (answering, REFUSE, True, RUNS_ALREADY, ""),
    (being_stopped, REPLACE, False, WAITS, "launched 2"),
    (being_stopped, ATTACH, False, WAITS, "launched 2"),
    (being_stopped, ATTACH, True, WAITS, "launched 2"),
    (stopped_as_an_orphan, REPLACE, False, WAITS, "launched 2"),
    (stopped_as_an_orphan, ATTACH, False, WAITS, "launched 2"),
    (stopped_as_an_orphan, REFUSE, False, RUNS_ALREADY, ""),
    (being_cleared, REPLACE, False, WAITS, "launched 2"),
    (being_cleared, ATTACH, False, WAITS, "launched 2"),
    (being_cleared, REFUSE, False, WAITS, "launched 2"),
]
cases = pytest.mark.parametrize(
    ("before", "on_existing", "takeover", "at_once", "then"), CASES,
    ids=[f"{case[0].__name__}-{case[1].value}{'-takeover' * case[2]}" for case in CASES],
)  # fmt: skip


@cases
def test_another_run_of_the_name(
    before: Callable[[Bed], None], on_existing: OnExisting, at_once: str, then: str, *, takeover: bool
) -> None:
    """What a newcomer hears at once, and when the run before has ended, whatever ended it."""
    bed = bed_with_a_run()
    before(bed)
    assert bed.launch("new", 2, on_existing=on_existing, takeover=takeover) == at_once
    assert bed.started == [1]
    if bed.run(1).state is not S.CLEARING:
        bed.happen(1, E.LEADER_ENDED, outcome=Exited(0))
    bed.happen(1, E.TREE_EMPTY)
    assert bed.hears("new") == then
    assert bed.started == ([1, 2] if then == "launched 2" else [1])
    assert len(bed.receipts(1)) == 1


STOPPED_BY_IT = [(lost, False), (detached, False), (answering, True)]


@pytest.mark.parametrize(("before", "takeover"), STOPPED_BY_IT, ids=lambda case: getattr(case, "__name__", case))
def test_replaced_run_is_stopped_by_its_rules_and_says_why(before: Callable[[Bed], None], *, takeover: bool) -> None:
    """Replacing stops the old tree first, and the new run does not begin before nothing is left of it."""
    bed = bed_with_a_run()
    before(bed)
    bed.actions()
    bed.launch("new", 2, takeover=takeover)
    assert bed.actions() == [A.ASK_TO_STOP]
    bed.happen(1, E.LEADER_ENDED, outcome=Exited(5))
    assert bed.started == [1]
    bed.happen(1, E.TREE_EMPTY)
    assert (bed.receipts(1)[0]["reason"], bed.receipts(1)[0]["outcome"]["code"]) == ("replaced", 5)
    assert bed.hears("new") == "launched 2"
    if before is answering:
        assert bed.hears("old") == "exited 1 replaced: exited with code 5"


@pytest.mark.parametrize("before", [answering, being_stopped], ids=lambda before: before.__name__)
def test_newcomer_leaves_alone_what_is_watched(before: Callable[[Bed], None]) -> None:
    """Without takeover nothing is done to a run whose manager may be there: neither stopped nor bound anew."""
    bed = bed_with_a_run()
    before(bed)
    bed.actions()
    bed.launch("new", 2)
    assert (bed.actions(), bed.hears("old")) == ([], "")
    assert bed.run(1).reason is (bed.run(1).reason.ASKED if before is being_stopped else bed.run(1).reason.ITSELF)


def test_manager_that_is_pushed_aside_is_told() -> None:
    """A takeover that attaches hangs up on the manager before, with the name of who watches from here on."""
    bed = bed_with_a_run()
    assert bed.launch("new", 2, on_existing=ATTACH, takeover=True) == "launched 1 attached"
    assert bed.hears("old") == "bye: manager host2 watches web from here on"
    assert bed.run(1).deadline is None
    bed.lose("old")
    assert bed.run(1).deadline is None


# ---- to see whether a manager answers ----------------------------------------------------------------------


@every
def test_who_answers_keeps_its_name(on_existing: OnExisting) -> None:
    """A newcomer waits until the manager of the run is heard, and is refused then, whatever it wants."""
    bed = bed_with_a_run()
    assert bed.launch("new", 2, on_existing=on_existing) == WAITS
    assert bed.answer("old") == ""
    assert bed.hears("new") == WATCHED
    bed.end(1)
    assert bed.started == [1]


@every
def test_being_heard_before_the_newcomer_came_does_not_count(on_existing: OnExisting) -> None:
    """A manager that vanished right after its last poll is not taken for one that answers."""
    bed = bed_with_a_run()
    bed.answer("old")
    assert bed.launch("new", 2, on_existing=on_existing) == WAITS


@pytest.mark.parametrize(
    ("on_existing", "then"),
    [(REPLACE, ""), (ATTACH, "launched 1 attached"), (REFUSE, RUNS_ALREADY)],
    ids=lambda case: getattr(case, "value", ""),
)
@pytest.mark.parametrize("leaves", [lost, detached], ids=lambda leaves: leaves.__name__)
def test_who_does_not_answer_loses_its_name(on_existing: OnExisting, then: str, leaves: Callable[[Bed], None]) -> None:
    """Once the manager is gone, the newcomer that waited for that goes on as it wants."""
    bed = bed_with_a_run()
    bed.launch("new", 2, on_existing=on_existing)
    leaves(bed)
    assert bed.hears("new") == then
    assert (bed.run(1).state is S.STOPPING) == (on_existing is REPLACE)


def test_replacing_goes_on_when_the_old_manager_comes_back() -> None:
    """A manager that returns to a run that is being replaced sees its end, and takes back nothing."""
    bed = bed_with_a_run()
    bed.lose("old")
    bed.launch("new", 2)
    bed.connect("again", instance="old")
    assert bed.launch("again", 1, resume=True) == "launched 1 attached"
    assert bed.answer("again") == ""
    bed.end(1, Exited(9))
    assert bed.hears("again") == "exited 1 replaced: exited with code 9"
    assert bed.hears("new") == "launched 2"


def test_one_launch_waits_at_a_time() -> None:
    """A third manager is refused while the second waits; the second still gets the name."""
    bed = bed_with_a_run()
    bed.connect("third", manager="host3")
    bed.launch("new", 2)
    for takeover in (False, True):
        refused = "refused name-taken: another launch of web waits already"
        assert bed.launch("third", 3, takeover=takeover) == refused
    bed.lose("old")
    bed.end(1)
    assert bed.hears("new") == "launched 2"


def test_newcomer_that_is_lost_waits_no_longer() -> None:
    """The name is free for the next when the manager that waited for it has gone."""
    bed = bed_with_a_run()
    bed.launch("new", 2)
    bed.lose("new")
    bed.connect("third", manager="host3")
    assert bed.launch("third", 3) == WAITS
    bed.lose("old")
    bed.end(1)
    assert bed.hears("third") == "launched 3"
    assert bed.started == [1, 3]


def test_newcomer_takes_its_launch_back() -> None:
    """A stop of a launch that waits is answered, and refuses the launch; the run before goes on."""
    bed = bed_with_a_run()
    bed.launch("new", 2)
    assert bed.stop("new") == "done; refused stopped: it was stopped before it was launched"
    bed.end(1)
    assert (bed.hears("new"), bed.started) == ("", [1])


def test_names_do_not_meet() -> None:
    """What waits for one name has nothing to do with another."""
    bed = bed_with_a_run()
    bed.connect("third", manager="host3")
    assert bed.launch("third", 3, name="db") == "launched 3"
    bed.launch("new", 2)
    assert bed.answer("third") == ""
    assert bed.hears("new") == WAITS
    bed.end(3)
    assert bed.hears("new") == WAITS


@pytest.mark.parametrize("number", [1, 2], ids=["the same run", "another"])
def test_newcomer_that_reconnects_goes_on_waiting(number: int) -> None:
    """A waiting manager that comes by another link is answered there, and keeps its place."""
    bed = bed_with_a_run()
    bed.launch("new", number)
    bed.connect("newer", manager="host2", instance="new")
    assert bed.launch("newer", number) == WAITS
    bed.lose("new")
    bed.answer("old")
    assert bed.hears("newer") == WATCHED
