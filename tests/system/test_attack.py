"""`./run attack` as it is called: a short one holds, and each planted defect is found."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from attack import plants
from attack.catalogue import ATTACKS
from attack.impostors import IMPOSTORS
from attack.judge import Deed, Meeting, Round, Violation, judge
from attack.posts import Exit

ROOT = Path(__file__).parents[2]
SHORT = ("--seconds", "0.1", "--managers", "6", "--seed", "5")
QUICK = (*SHORT, "--handshakes", "500", "--at-once", "30")
# Tricks that are found side by side, the crowd that it takes, and what shows them.
TRICKS = {
    ("unproven", "any-role", "leak", "chatty"): (150, "no certificate, many", "certificate: other-role", "churn"),
    ("stands-still",): (40, "churn"),
    ("dies",): (150, "silent, one address"),
}


def attack(*options: str) -> subprocess.CompletedProcess[str]:
    """Run a campaign to its end."""
    command = [sys.executable, "-m", "attack", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.timeout(120)
def test_every_attack_is_withstood() -> None:
    """All attacks once, many at the same time: every invariant holds, and each has its row in the table."""
    done = attack(*QUICK, *(word for name in ATTACKS for word in ("--only", name)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^PASS: 0 violations", done.stdout, re.MULTILINE)
    for name in ATTACKS:
        assert re.search(rf"^{re.escape(name)} +\d+ ", done.stdout, re.MULTILINE), name


def test_managers_withstand_every_hostile_server() -> None:
    """Real managers meet all hostile servers, and end as the table of exit codes says."""
    done = attack(*SHORT, *(word for name in IMPOSTORS for word in ("--only", name)))
    assert done.returncode == 0, done.stdout + done.stderr
    for name in IMPOSTORS:
        assert re.search(rf"^{re.escape(name)} +\d+ ", done.stdout, re.MULTILINE), name


@pytest.mark.parametrize("tricks", TRICKS, ids="+".join)
def test_a_server_with_planted_defects_is_found_out(tricks: tuple[str, ...]) -> None:
    """Defects that are planted into the server itself make the campaign fail, and are called by their names."""
    crowd, *names = TRICKS[tricks]
    planted = [word for trick in tricks for word in ("--plant", trick)]
    chosen = [word for name in names for word in ("--only", str(name))]
    done = attack(*SHORT, "--handshakes", str(crowd), *planted, *chosen)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for trick in tricks:
        assert re.search(rf"^  ({'|'.join(plants.EXPECTED[trick])}): ", done.stdout, re.MULTILINE), (trick, done.stdout)
    assert re.search(r"^FAIL: ", done.stdout, re.MULTILINE)


def test_every_trick_is_tried() -> None:
    """No trick is left out above, and none of both kinds is without an answer."""
    assert {trick for tricks in TRICKS for trick in tricks} == plants.TRICKS.keys()
    assert plants.EXPECTED.keys() == plants.TRICKS.keys() | plants.FORGERIES.keys()


def test_the_seed_and_the_help_are_told() -> None:
    """The help names the options that make a campaign smaller or larger."""
    done = attack("--help")
    assert done.returncode == 0
    for option in ("--seconds", "--handshakes", "--managers", "--seed"):
        assert option in done.stdout


# ---- the judge -----------------------------------------------------------------------------------------------


def good() -> tuple[list[Round], list[Meeting]]:
    """Return what is seen when nothing is wrong."""
    honest = {"polls": [0.001] * 100, "exits": [Exit("post-1", 7, 7, 0.01)], "let_in": [0.1]}
    quiet = Round([Deed("in peace", Counter({"nobody": 1}))], **honest)  # type: ignore[arg-type]
    deeds = [Deed("runs", Counter({"status: said: runs": 1}), r"status: said: runs", "evil")]
    attacked = Round(deeds, log="manager evil: turned away", **{**honest, "exits": list(quiet.exits)})  # type: ignore[arg-type]
    met = Meeting("server", 122, 122, "role", "is for the other role", 100, 1 << 20, 0.1, 40.0)
    return [quiet, attacked], [met]


def kinds(found: list[Violation]) -> set[str]:
    """Return the kinds of what was found."""
    return {violation.kind for violation in found}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    """What is in order is no violation, and to be let go without a word is in order for a hostile peer."""
    rounds, meetings = good()
    rounds[1].deeds[0].outcomes["closed"] += 3
    assert judge(rounds, meetings) == []


@pytest.mark.parametrize("name", plants.FORGERIES)
def test_false_evidence_is_found_out(name: str) -> None:
    """A defect that is planted into what was seen is found, and called by its name."""
    rounds, meetings = good()
    plants.forge([name], rounds, meetings)
    assert kinds(judge(rounds, meetings)) == set(plants.EXPECTED[name])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("defect", {"log": "evil ERROR: internal error: KeyError"}),
        ("log size", {"log_bytes": 1 << 24}),
        ("server", {"same_server": False}),
        ("connections", {"settled": False}),
        ("memory", {"memory": 1 << 28}),
        ("stall", {"polls": [0.001] * 99 + [5.0]}),
        ("polls", {"pollers": "the honest pollers gave up"}),
        ("newcomer", {"let_in": [50.0]}),
        ("log", {"log": ""}),
        ("nothing", {"deeds": [Deed("runs", Counter())]}),
        ("outcome", {"deeds": [Deed("runs", Counter({"said: welcome": 1}), "closed")]}),
    ],
)
def test_a_broken_promise_is_found(kind: str, changes: dict[str, object]) -> None:
    """Each invariant is judged by itself."""
    rounds, meetings = good()
    for name, value in changes.items():
        setattr(rounds[1], name, value)
    assert kinds(judge(rounds, meetings)) == {kind}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("manager", {"code": None}),
        ("manager log", {"log": "nothing"}),
        ("defect", {"log": "internal error: role"}),
        ("manager memory", {"memory": 1 << 28}),
        ("manager log size", {"log_bytes": 1 << 28}),
        ("manager late", {"seconds": 60.0}),
    ],
)
def test_what_a_hostile_server_does_to_a_manager_is_found(kind: str, changes: dict[str, object]) -> None:
    """So is each that a manager promises."""
    rounds, meetings = good()
    told = Meeting(**{**vars(meetings[0]), **changes})
    assert kinds(judge(rounds, [told])) == {kind}
