"""What a run's file says: wherever it breaks off, nothing is known that was not written, and nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cmapp.core import messages as m
from cmapp.core.charge import Facts
from cmapp.core.ledger import FORMAT
from cmapp.core.lifecycle import State
from cmapp.core.rules import HealthRules, Kind, OrphanAction, OrphanRules, StopRules
from cmapp.core.wire import plain
from tests.core.charge_stories import cuts, ends_by_itself, left_behind, story
from tests.core.roster_bed import BOOT, Bed, run_id

if TYPE_CHECKING:
    from collections.abc import Callable

S = State


@cuts
def test_nothing_is_known_that_was_not_written(tell: Callable[[], Bed], cut: int) -> None:
    """Every beginning of a file makes a run in a state that fits what it says, and says no more."""
    bed, known = left_behind(tell, cut)
    facts = Facts(bed.files[1], settled=False)
    assert facts.launch == m.Launch(facts.launch.id, "web", run_id(1), ("web",)).replace(
        **{name: getattr(facts.launch, name) for name in ("kind", "ready")}
    )
    assert (facts.manager, facts.boot_id, facts.pid) == (known["manager"], BOOT, known.get("pid", 0))
    charge = facts.charge(100.0)
    run = charge.run
    assert (charge.pid, charge.start) == (known.get("pid", 0), known.get("start", 0))
    assert (charge.sure, charge.detached) == ("launched" in known, known.get("detached", False))
    assert (charge.orphaned, run.held) == (known.get("orphaned"), known.get("held", False))
    assert (run.reason.value, run.forced) == (known.get("stopping", "itself"), known.get("forced", False))
    assert plain(run.outcome) == known.get("outcome")
    assert (run.started, run.started_wall, run.ended) == (known["started"], known["wall"], known.get("ended"))
    ending = S.KILLING if run.forced else S.STOPPING if "stopping" in known else None
    came_up = known.get("ready") or known.get("moved") or not run.says_ready
    quiet = S.RUNNING if came_up else S.READYING
    assert run.state is (S.CLEARING if "receipt" in known else ending or quiet)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([], f"has the format None, and this version reads {FORMAT}"),
        ([{"pid": 7}], f"has the format None, and this version reads {FORMAT}"),
        ([{"format": 2, "launch": {}}], "has the format 2, and this version reads 1"),
        ([{"format": 1}], "must be an object"),
        ([{"format": 1, "launch": {}}], "Launch needs id"),
        ([*ends_by_itself().files[1], {"receipt": {}}], "receipt: Receipt needs name"),
    ],
    ids=["nothing", "no header", "newer", "no launch", "empty launch", "bad receipt"],
)
def test_what_is_no_file_of_ours(entries: list[dict[str, Any]], reason: str) -> None:
    """A file that cannot be read is told apart from one that says nothing, and why."""
    with pytest.raises(ValueError, match=f"^{reason}"):
        Facts(entries, settled=False)


def test_launch_survives_the_file() -> None:
    """Whatever a launch says, the next server knows; what it does not say has its default."""
    rules = {
        "limits": {"nofile": (5, -1)},
        "kind": Kind.FORKING,
        "stop": StopRules(2, 5.0, ("web", "stop")),
        "orphan": OrphanRules(5.0, OrphanAction.KEEP),
        "health": HealthRules(("web", "ping")),
        "env": {"A": "ü\n"},
        "watchdog": 7.5,
    }
    launch = Facts(story(**rules).files[1], settled=False).launch
    assert {name: getattr(launch, name) for name in rules} == rules
    assert launch.ready is None
