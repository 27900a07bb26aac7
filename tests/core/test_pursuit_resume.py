"""A pursuit that is to return to a run launches nothing, from its first connection on."""

from __future__ import annotations

import pytest

from cmapp.core.outcome import Failed, NotStarted, Receipt, Refused, Unknown, Verdict
from cmapp.core.pursuit import Action, Event, Patience, Pursuit, State

GREETED = (Event.BEGUN, Event.CONNECTED, Event.WELCOMED)


def greeted(*, resume: bool) -> Pursuit:
    """Return a pursuit that has asked for the launch."""
    pursuit = Pursuit(Patience(), lambda: 1.0, resume=resume)
    actions = [action for event in GREETED for action in pursuit.step(event, 0.0)]
    assert actions[-1] is Action.LAUNCH
    return pursuit


@pytest.mark.parametrize("resume", [True, False])
def test_the_first_launch_says_so(resume: bool) -> None:  # noqa: FBT001
    """The server is told with the very first launch that nothing may be started."""
    pursuit = Pursuit(Patience(), lambda: 1.0, resume=resume)
    assert pursuit.resume is resume


@pytest.mark.parametrize(
    ("resume", "verdict"),
    [(True, Unknown("the server knows nothing of it any more")), (False, Refused("no-run", "nothing is known"))],
)
def test_a_run_that_is_not_known(resume: bool, verdict: Verdict) -> None:  # noqa: FBT001
    """Its end is unknown; for who did not want to return it is a refusal like any other."""
    pursuit = greeted(resume=resume)
    pursuit.step(Event.REFUSED, 1.0, Refused("no-run", "nothing is known"))
    assert (pursuit.state, pursuit.verdict) == (State.CONCLUDED, verdict)


def test_a_run_that_is_there() -> None:
    """It is watched, and stopped, as any other."""
    pursuit = greeted(resume=True)
    assert pursuit.step(Event.LAUNCHED, 1.0) == ()
    assert pursuit.state is State.WATCHING
    assert Action.STOP in pursuit.step(Event.SIGNALED, 2.0)


@pytest.mark.parametrize("event", [Event.SIGNALED, Event.DISMISSED])
def test_asked_before_there_is_a_connection(event: Event) -> None:
    """Nothing is known of the run then, and nothing is said of it."""
    pursuit = Pursuit(Patience(), lambda: 1.0, resume=True)
    pursuit.step(Event.BEGUN, 0.0)
    pursuit.step(event, 1.0)
    assert isinstance(pursuit.verdict, Failed)
    assert not isinstance(pursuit.verdict, (Receipt, NotStarted))
