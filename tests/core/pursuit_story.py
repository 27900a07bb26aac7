"""How stories of a pursuit are told: what happens at which second, and what comes of it."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from cmapp.core.outcome import Detached, Exited, Failed, NotStarted, Reason, Receipt, Refused, Unreachable, Verdict
from cmapp.core.pursuit import Action, Event, Patience, Pursuit, State

A, E, S = Action, Event, State
RECEIPT = Receipt(
    name="web",
    run_id="01234567-89ab-cdef-0123-456789abcdef",
    outcome=Exited(3),
    reason=Reason.ITSELF,
    started=0,
    ended=0,
    lasted=0,
)
GONE = Unreachable("the connection was reset")
WAY = [E.BEGUN, E.CONNECTED, E.WELCOMED, E.LAUNCHED]
BACK = [*WAY, E.LINK_LOST, E.RETRY_DUE, E.CONNECTED, E.WELCOMED]
WAYS: dict[State, list[Event]] = {
    S.IDLE: [],
    S.CONNECTING: WAY[:1],
    S.WAITING: [E.BEGUN, E.LINK_LOST],
    S.GREETING: WAY[:2],
    S.LAUNCHING: WAY[:3],
    S.WATCHING: WAY,
    S.STOPPING: [*WAY, E.SIGNALED],
    S.DETACHING: [*WAY, E.DISMISSED],
    S.AWAY: BACK[:5],
    S.RECONNECTING: BACK[:6],
    S.REGREETING: BACK[:7],
    S.REATTACHING: BACK,
    S.CONCLUDED: [E.BROKEN],
}


TICK = 1 / 1024  # everything below is a multiple of it, so that sums are exact
SECONDS = st.integers(1, 60 * 1024).map(lambda ticks: ticks * TICK)
PATIENCES = st.builds(
    Patience,
    poll_interval=SECONDS,
    poll_timeout=SECONDS,
    connect_timeout=SECONDS,
    stop_timeout=SECONDS,
    link_timeout=SECONDS,
)


# A story is what happens at which second, and what comes of it. None as event is a look at the clock.
Step = tuple[float, Event | Verdict | None, State, list[Action], float | None]
BEGIN: list[Step] = [
    (0, E.BEGUN, S.CONNECTING, [A.CONNECT], 10),
    (1, E.CONNECTED, S.GREETING, [A.SAY_HELLO], 10),
    (2, E.WELCOMED, S.LAUNCHING, [A.LAUNCH], 7),
]
WATCH: list[Step] = [*BEGIN, (3, E.LAUNCHED, S.WATCHING, [], 7)]
END = [A.HANG_UP, A.CONCLUDE]
LEFT = Detached("for a later manager, as was asked for")
NO_WAY_BACK = "no way back within 30 s"
# The link is lost, and there again.
LOSE: list[Step] = [(4, GONE, S.AWAY, [A.HANG_UP], 4.1)]
RETURN: list[Step] = [
    (4.1, None, S.RECONNECTING, [A.CONNECT], 14.1),
    (4.2, E.CONNECTED, S.REGREETING, [A.SAY_HELLO], 14.1),
    (4.3, E.WELCOMED, S.REATTACHING, [A.LAUNCH, A.POLL], 14.3),
    (4.4, E.LAUNCHED, S.WATCHING, [], 14.3),
    (4.4, E.REPORTED, S.WATCHING, [], 9.4),
]


def away(first: float, limit: float) -> list[Step]:
    """Return how a pursuit tries to come back to a guest that hangs, the first time at `first`, up to `limit`."""
    steps: list[Step] = []
    retry, pause = first, 0.2
    while True:
        late = retry + 10
        steps.append((retry, None, S.RECONNECTING, [A.CONNECT], min(late, limit)))
        if late >= limit:
            return [*steps, (limit, None, S.CONCLUDED, END, None)]
        steps.append((late, None, S.AWAY, [A.HANG_UP], min(late + pause, limit)))
        retry, pause = late + pause, pause * 2


MEANT: dict[type[Verdict], Event] = {
    Receipt: E.EXITED,
    NotStarted: E.NOT_STARTED,
    Unreachable: E.LINK_LOST,
    Failed: E.BROKEN,
}


def event_of(verdict: Verdict) -> Event:
    """Return the event that comes with the verdict."""
    if isinstance(verdict, Refused):
        return E.DENIED if verdict.code == "trust" else E.REFUSED
    return MEANT[type(verdict)]


def tell(steps: list[Step], verdict: Verdict) -> None:
    """Hold a pursuit against the story; what it leaves open is ended by a denial for the verdict GONE."""
    pursuit = Pursuit(Patience(), lambda: 1.0)
    for now, event, state, actions, deadline in steps:
        if event is None:
            due = pursuit.deadline
            done = pursuit.clock(due if due is not None and due == pytest.approx(now) else now)
        elif isinstance(event, Event):
            done = pursuit.step(event, now)
        else:
            done = pursuit.step(event_of(event), now, event)
        assert (now, event, pursuit.state, list(done)) == (now, event, state, actions)
        assert pursuit.deadline == (None if deadline is None else pytest.approx(deadline))
    if pursuit.state is not S.CONCLUDED:
        pursuit.step(E.DENIED, 100.0, GONE)
    assert pursuit.verdict == verdict
    assert pursuit.step(E.BROKEN, 101.0, Failed("later")) == ()
    assert pursuit.verdict == verdict


def pursuit_in(state: State, patience: Patience | None = None) -> Pursuit:
    """Return a pursuit that came to that state at second 0, with the longest possible pauses."""
    pursuit = Pursuit(patience or Patience(), lambda: 1.0)
    for event in WAYS[state]:
        pursuit.step(event, 0.0, Failed("a defect"))
    assert pursuit.state is state
    return pursuit
