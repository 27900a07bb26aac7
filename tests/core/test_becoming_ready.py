"""When a run is ready, and who is told."""

from __future__ import annotations

import pytest

from cmapp.core import messages as m
from cmapp.core.lifecycle import Action, Event, State
from cmapp.core.rules import HealthRules, Kind, Probe, ReadyRules
from cmapp.core.run import Run

WALL = 1_000_000.0
A, E, S = Action, Event, State
LAUNCH = m.Launch(1, "web", "01234567-89ab-cdef-0123-456789abcdef", ("web",))
PROBED = LAUNCH.replace(ready=ReadyRules(Probe.TCP, "80", timeout=20.0))


def run_in(state: State, launch: m.Launch) -> Run:
    """Return a run that is in that state."""
    return Run(launch, 0.0, WALL, state)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, False),
        ({"kind": Kind.FORKING}, True),
        ({"kind": Kind.NOTIFY}, True),
        ({"ready": ReadyRules(Probe.NOTIFY)}, True),
        ({"ready": ReadyRules(Probe.TCP, "80"), "kind": Kind.FORKING}, True),
        ({"health": HealthRules(("true",)), "watchdog": 5.0}, False),
    ],
    ids=repr,
)
def test_who_is_ready_as_soon_as_it_runs(changes: dict[str, object], *, says: bool) -> None:
    """A simple application without rules is ready when it is launched; what forks or has rules says so itself."""
    run = Run(LAUNCH.replace(**changes), 0.0, WALL)
    assert run.says_ready is says
    done = run.step(E.SPAWNED, 1.0)
    assert done == ((A.TELL_LAUNCHED,) if says else (A.TELL_LAUNCHED, A.TELL_READY))
    assert (run.state, run.ready) == ((S.READYING, False) if says else (S.RUNNING, True))


def test_ready_is_told_once() -> None:
    """A second READY=1 tells nobody anything."""
    run = run_in(S.READYING, PROBED)
    assert run.step(E.READY, 1.0) == (A.TELL_READY,)
    assert run.step(E.READY, 2.0) == ()
    assert run.ready


def test_ready_while_it_is_stopped_is_remembered_and_not_told() -> None:
    """What becomes ready while it is stopped is not announced."""
    run = run_in(S.STOPPING, PROBED)
    assert run.step(E.READY, 1.0) == ()
    assert run.state is S.STOPPING
