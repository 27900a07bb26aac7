"""What the policy makes of launches: before anything else is looked at, and of runs that another manager has."""

from __future__ import annotations

from typing import Any

import pytest

from cmapp.core.lifecycle import State
from cmapp.core.outcome import Exited
from cmapp.core.policy import Policy, applications, rules
from cmapp.core.rules import OnExisting
from tests.core.roster_bed import Bed

REFUSED = "refused policy: refused by policy"


def bed_with(*tables: dict[str, Any], **commands: str) -> Bed:
    """Return a guest with rules, which allow the beds' command unless they say otherwise, and with applications."""
    bed = Bed()
    defined = applications({name: {"command": command} for name, command in commands.items()})
    bed.roster.admission.policy = Policy(rules([{"commands": "web", **table} for table in tables]), defined)
    bed.connect("one", manager="host1")
    bed.connect("two", manager="host2")
    return bed


def test_a_refusal_leaves_nothing() -> None:
    """The manager hears that it is refused, the guest's log says by which rule, and there is no run."""
    bed = bed_with({"managers": "host1", "names": "db"})
    assert bed.launch("one", 1) == REFUSED
    assert bed.logged[-1] == (
        "warning",
        "launch of web by manager host1 refused by policy: rule 1: it is not for an application called web",
    )
    assert bed.launch("two", 1, "db") == REFUSED
    assert bed.logged[-1][1].endswith("refused by policy: no rule names that manager")
    assert (bed.started, bed.files, bed.roster.charges) == ([], {}, {})
    assert bed.launch("one", 1, "db") == "launched 1"


def test_the_rule_says_as_whom() -> None:
    """What is launched, and on record, is what the policy made of the launch."""
    bed = bed_with({"managers": "host1", "users": "redis"})
    bed.launch("one", 1)
    assert bed.files[1][0]["launch"]["user"] == "redis"


def test_an_application_of_the_guest() -> None:
    """It is launched by its name, and is on record with its command, for a later server may have other rules."""
    bed = bed_with({"managers": "host1", "applications": "web"}, web="nginx -g x")
    assert bed.launch("one", 1, argv=()) == "launched 1"
    assert bed.files[1][0]["launch"]["argv"] == ["nginx", "-g", "x"]
    bed.restart()
    assert bed.roster.charges["web"].launch.argv == ("nginx", "-g", "x")


def test_an_application_that_nobody_has_defined() -> None:
    """Where no policy is written there is nothing to hide."""
    bed = Bed()
    bed.connect("one")
    assert bed.launch("one", 1, argv=()) == "refused not-found: no application web is defined in this guest"


def test_how_many() -> None:
    """A manager may have as many at once as its rule says, whatever the others have."""
    bed = bed_with({"managers": "host*", "most": 1})
    bed.connect("more", manager="host1")
    assert bed.launch("one", 1, "a") == "launched 1"
    assert bed.launch("two", 2, "b") == "launched 2"
    assert bed.launch("more", 3, "c") == REFUSED
    assert "1 applications of that manager run, which is the most that its rule allows" in bed.logged[-1][1]
    bed.end(1)
    assert bed.launch("more", 4, "c") == "launched 4"


def test_how_many_does_not_count_what_is_replaced() -> None:
    """A manager at its most may still launch its application anew."""
    bed = bed_with({"managers": "host*", "most": 1})
    bed.launch("one", 1)
    bed.lose("one")
    bed.connect("again", manager="host1")
    bed.launch("again", 2)
    assert bed.run(1).state is State.STOPPING
    bed.end(1)
    assert bed.hears("again") == "launched 2"


TWO = ({"managers": "host1", "users": "db"}, {"managers": "host2", "users": "mail"})
HOWS: dict[str, dict[str, Any]] = {
    "replace": {},
    "attach": {"on_existing": OnExisting.ATTACH},
    "takeover": {"takeover": True},
    "resume": {"resume": True},
}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("number", [1, 2], ids=["by its run id", "by its name"])
@pytest.mark.parametrize("lost", [False, True], ids=["while its manager is there", "when its manager is lost"])
def test_a_run_of_somebody_with_other_rights(how: str, number: int, *, lost: bool) -> None:
    """Nobody gets hold of a run, or stops it, that it might not have launched itself."""
    bed = bed_with(*TWO)
    bed.launch("one", 1)
    if lost:
        bed.lose("one")
    said = bed.launch("two", number, **HOWS[how])
    if how == "resume" and number != 1:
        assert said.startswith("refused no-run")
    else:
        assert said == REFUSED
        assert "manager host1 has a run of that name which it might not launch itself" in bed.logged[-1][1]
    assert bed.run(1).state is State.RUNNING
    assert bed.started == [1]


@pytest.mark.parametrize("how", ["replace", "attach", "takeover"])
def test_a_run_of_somebody_with_the_same_rights(how: str) -> None:
    """The other host of a package takes over what its first one had."""
    bed = bed_with({"managers": "host*"})
    bed.launch("one", 1)
    bed.lose("one")
    bed.launch("two", 2, **HOWS[how])
    assert (bed.run(1).state is State.STOPPING) is (how != "attach")


def test_an_application_of_the_guest_is_taken_over() -> None:
    """Whoever may launch it by its name may take it over, even if it was defined otherwise when it was launched."""
    bed = bed_with({"managers": "host*", "applications": "web"}, web="nginx")
    bed.launch("one", 1, argv=())
    bed.lose("one")
    other = applications({"web": {"command": "apache"}})
    bed.roster.admission.policy = Policy(rules([{"managers": "host*", "applications": "web"}]), other)
    assert bed.launch("two", 1, argv=()) == "launched 1 attached"


def test_an_outcome_is_told_by_the_policy_too() -> None:
    """How a run ended is not told to a manager that has no right to its name."""
    bed = bed_with({"managers": "host1"}, {"managers": "host2", "names": "mail"})
    bed.launch("one", 1)
    bed.end(1, Exited(3))
    assert bed.hears("one") == "exited 1 itself: exited with code 3"
    assert bed.launch("two", 1) == REFUSED


def test_new_rules_leave_what_runs() -> None:
    """A manager whose right is taken from it keeps the run that it has, and gets no other."""
    bed = bed_with({"managers": "host1"})
    bed.launch("one", 1)
    bed.roster.admission.policy = Policy(rules([{"managers": "host2", "commands": "web"}]))
    bed.end(1, Exited(3))
    assert bed.hears("one") == "exited 1 itself: exited with code 3"
    assert bed.launch("one", 2) == REFUSED
