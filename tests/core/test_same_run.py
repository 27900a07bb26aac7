"""A run that is launched again: by its manager that comes back, by a twin, by whoever has its run id."""

from __future__ import annotations

import pytest

from cmapp.core.lifecycle import State
from cmapp.core.outcome import Exited
from cmapp.core.rules import OnExisting
from tests.core.roster_bed import Bed, bed_with_a_run

S = State
ATTACH = OnExisting.ATTACH
WATCHED = "refused name-taken: an application of the name web is already watched by manager host1"
WAITS = ""


def test_same_process_comes_back_by_another_link() -> None:
    """A manager that reconnects before its old link is missed is superseded there, and attached at once."""
    bed = bed_with_a_run()
    bed.connect("again", instance="old")
    assert bed.hears("old") == "bye: the same manager is on another link"
    assert bed.launch("again", 1) == "launched 1 attached"
    bed.end(1, Exited(4))
    assert bed.hears("again") == "exited 1 itself: exited with code 4"
    assert bed.started == [1]


@pytest.mark.parametrize(
    ("manager", "instance"), [("host1", "other"), ("host1", ""), ("host2", "old")], ids=["process", "nameless", "host"]
)
def test_another_process_in_the_name_of_the_run(manager: str, instance: str) -> None:
    """A second manager with the same run id is no better than one with another, while the first answers."""
    bed = bed_with_a_run()
    bed.connect("twin", manager=manager, instance=instance)
    assert bed.launch("twin", 1) == WAITS
    bed.answer("old")
    assert bed.hears("twin") == WATCHED
    assert bed.launch("twin", 1, takeover=True) == "launched 1 attached"
    assert bed.hears("old") == f"bye: manager {manager} watches web from here on"


def test_newcomer_waits_while_the_manager_changes_its_link() -> None:
    """That the same process comes by another link is no loss: whoever waits for its name still waits in vain."""
    bed = bed_with_a_run()
    bed.launch("new", 2)
    bed.connect("again", instance="old")
    assert (bed.hears("new"), bed.run(1).state) == (WAITS, S.RUNNING)
    assert bed.launch("again", 1, resume=True) == "launched 1 attached"
    bed.answer("again")
    assert bed.hears("new") == WATCHED


@pytest.mark.parametrize("late", [False, True], ids=["", "and its old link ends later"])
def test_newcomer_goes_on_when_the_manager_is_lost_on_its_way_back(*, late: bool) -> None:
    """A manager that came by another link, and was lost before it asked for its run, is lost."""
    bed = bed_with_a_run()
    bed.launch("new", 2, on_existing=ATTACH)
    bed.connect("again", instance="old")
    if late:
        bed.lose("old")
        assert bed.hears("new") == WAITS
    bed.lose("again")
    assert bed.hears("new") == "launched 1 attached"


def test_processes_without_a_name_are_not_the_same() -> None:
    """Two managers that name no instance are two."""
    bed = Bed()
    bed.connect("one", "two", instance="")
    bed.launch("one", 1)
    assert bed.launch("two", 1) == WAITS


def test_another_process_attaches_when_the_first_is_gone() -> None:
    """The same run id is attached to as soon as its manager is lost, whatever on_existing says."""
    for on_existing in OnExisting:
        bed = bed_with_a_run()
        assert bed.launch("new", 1, on_existing=on_existing) == WAITS
        bed.lose("old")
        assert bed.hears("new") == "launched 1 attached"
        assert bed.run(1).state is S.RUNNING
        assert bed.run(1).deadline is None


def test_another_process_that_waited_hears_the_end() -> None:
    """A run that ends while a second manager of the same run id waits is not run again: it once was."""
    bed = bed_with_a_run()
    bed.launch("new", 1)
    bed.end(1, Exited(3))
    assert bed.hears("new") == "launched 1 attached; exited 1 itself: exited with code 3"
    assert bed.started == [1]


@pytest.mark.parametrize("resume", [False, True], ids=["", "resume"])
def test_run_that_has_ended_is_told_again(*, resume: bool) -> None:
    """A manager that returns after the end hears how it ended, before and after it was acknowledged."""
    bed = bed_with_a_run()
    bed.lose("old")
    bed.end(1, Exited(3))
    for link in ("again", "once more"):
        bed.connect(link)
        told = "launched 1 attached; exited 1 itself: exited with code 3"
        assert bed.launch(link, 1, resume=resume) == told
        assert bed.acknowledge(link, 1) == "done"
    assert bed.started == [1]


def test_run_that_is_forgotten_is_not_resumed() -> None:
    """Of a run that is no longer known, or never was, a manager that resumes learns that, and starts nothing."""
    bed = bed_with_a_run()
    bed.end(1)
    bed.acknowledge("old", 1)
    bed.wait(100.0)
    assert bed.launch("new", 1, resume=True).startswith("refused no-run: nothing is known of a run ")
    assert bed.launch("new", 2, resume=True).startswith("refused no-run: nothing is known of a run ")
    assert bed.started == [1]


def test_resume_attaches_to_what_lives() -> None:
    """A manager that resumes is attached to its run, while it lives and while it is being stopped."""
    bed = bed_with_a_run()
    bed.lose("old")
    bed.connect("again")
    assert bed.launch("again", 1, resume=True) == "launched 1 attached"
    bed.stop("again")
    bed.lose("again")
    bed.connect("again")
    assert bed.launch("again", 1, resume=True) == "launched 1 attached"
    bed.end(1, Exited(1))
    assert bed.hears("again") == "exited 1 asked: exited with code 1"


def test_resume_does_not_attach_to_another_run() -> None:
    """Who asks for its own run is not given another of the name."""
    bed = bed_with_a_run()
    bed.lose("old")
    assert bed.launch("new", 2, on_existing=ATTACH, resume=True).startswith("refused no-run: ")
    assert bed.run(1).state is S.RUNNING


def test_run_id_of_another_application() -> None:
    """A run id is one application's: another name can neither attach to it nor run under it, alive or ended."""
    bed = bed_with_a_run()
    taken = bed.launch("new", 1, name="db", takeover=True)
    assert taken.startswith("refused name-taken: the run ")
    assert taken.endswith(" is one of the application web")
    bed.end(1)
    assert bed.launch("new", 1, name="db").startswith("refused no-run: nothing is known of a run ")
    assert bed.started == [1]


def test_run_id_of_another_application_that_could_not_be_started() -> None:
    """Who asks for the run id of another application's failed launch does not wait for a name that is nobody's."""
    bed = Bed()
    bed.refusal = ("not-found", "there is no command web")
    bed.connect("old", "new")
    bed.launch("old", 1)
    assert bed.launch("new", 1, name="db").startswith("refused name-taken: the run ")


def test_launch_that_is_not_answered_yet_is_answered_on_the_link_that_is_there() -> None:
    """A manager that reconnects while its command is being prepared is told on its new link, and only there."""
    bed = Bed()
    bed.slow = True
    bed.connect("old")
    assert bed.launch("old", 1) == ""
    bed.connect("again", instance="old")
    assert bed.launch("again", 1) == ""
    assert bed.hears("old").startswith("bye: ")
    bed.execute(1)
    assert bed.hears("again") == "launched 1 attached"
    assert bed.hears("old") == ""


def test_refusal_of_a_launch_reaches_the_link_that_is_there() -> None:
    """A command that cannot be executed is told to whom asked last."""
    bed = Bed()
    bed.slow, bed.refusal = True, ("not-found", "there is no command web")
    bed.connect("old")
    bed.launch("old", 1)
    bed.lose("old")
    bed.connect("again", instance="old")
    bed.launch("again", 1)
    bed.execute(1)
    assert bed.hears("again") == "refused not-found: there is no command web"


def test_what_could_not_be_started_is_not_said_to_be_launched() -> None:
    """The run id of a failed launch, asked for again before its name is free, is started anew then."""
    bed = Bed()
    bed.refusal = ("not-found", "there is no command web")
    bed.connect("old", "again")
    assert bed.launch("old", 1) == "refused not-found: there is no command web"
    bed.refusal = None
    assert bed.launch("again", 1) == WAITS
    bed.end(1, Exited(1))
    assert bed.hears("again") == "launched 1"
    assert bed.started == [1]


def test_newcomer_that_attaches_to_a_launch_hears_that_it_did() -> None:
    """Bound to a run while that is being started, a newcomer hears `attached`: it has another run id than it asked."""
    bed = Bed()
    bed.slow = True
    bed.connect("old", "new")
    bed.launch("old", 1)
    assert bed.launch("new", 2, on_existing=ATTACH) == WAITS
    bed.lose("old")
    assert bed.hears("new") == ""
    bed.execute(1)
    assert bed.hears("new") == "launched 1 attached"


def test_run_that_was_given_up_is_not_started() -> None:
    """Once a manager was told that nothing is known of a run, and concluded that, no twin of it has it started."""
    bed = Bed()
    bed.connect("one", "twin")
    assert bed.launch("one", 1, resume=True).startswith("refused no-run")
    lost = "launched 1 attached; exited 1 itself: ended, but how is not known: nothing is known of it any more"
    assert bed.launch("twin", 1).startswith(lost)
    assert bed.started == []
