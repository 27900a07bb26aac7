"""The table of the guest service: what each state does with each event, and what can never happen."""

from __future__ import annotations

import pytest

from cmapp.core.vigil import Rules, Vigil
from cmapp.core.vm import LIVE, TABLE, TIMERS, Action, Event, State
from cmapp.core.vmending import EXIT_CODES, Cause
from cmapp.errors import StateError

A, E, S = Action, Event, State
CLOCKS = {event for timers in TIMERS.values() for event in timers}


def in_state(state: State) -> Vigil:
    """Return a vigil that is in `state`, whatever led there."""
    made = Vigil(Rules(), 0.0)
    made.state = state
    return made


# ---- the table ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
def test_clocks_ring_where_they_may_run_and_nowhere_else(state: State) -> None:
    """Each clock that a state names does something there, and others cannot ring."""
    assert {event for event in CLOCKS if TABLE[state, event] is not None} - TIMERS[state] == (
        CLOCKS if state is S.ENDED else set()
    )
    for event in TIMERS[state]:
        entry = TABLE[state, event]
        assert entry is not None
        assert entry != (state, ())


def test_the_machine_is_started_from_one_place() -> None:
    """Only who has looked, and has asked around, starts it; and nothing leads back there from a start."""
    starts = {(state, event) for (state, event), entry in TABLE.items() if entry and A.START in entry[1]}
    assert starts == {(S.CHECKING, E.UNANSWERED), (S.CHECKING, E.CHECK_LATE)}
    reached, found = {S.STARTING}, {S.STARTING}
    while found:
        found = {entry[0] for (state, _), entry in TABLE.items() if state in found and entry} - reached
        reached |= found
    assert not reached & {S.LOOKING, S.CHECKING}


@pytest.mark.parametrize("state", LIVE, ids=lambda state: state.value)
def test_a_machine_that_was_seen_ends_for_a_reason(state: State) -> None:
    """Readings that it is gone, a process that ended, a request, and judgements end it; not being told never does."""
    ends = {event for event in E if (entry := TABLE[state, event]) and entry[0] is S.ENDED}
    assert ends <= {E.DOWN, E.ELSEWHERE, E.LEAVE_WANTED, E.BROKEN, E.DOUBT_LATE, E.VANISHED}
    assert TABLE[state, E.UNTOLD] == (S.DOUBTFUL, ())


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
def test_what_cannot_happen_is_a_defect(state: State) -> None:
    """The pairs that are None raise, and the others do not."""
    for event in E:
        made = in_state(state)
        if TABLE[state, event] is None:
            with pytest.raises(StateError, match=f"{event.value} for a machine that is {state.value}"):
                made.step(event, 0)
        else:
            made.step(event, 0)


def test_every_cause_has_a_code() -> None:
    """What nobody has asked for and nobody can tell is never 0."""
    assert set(EXIT_CODES) == set(Cause)
    assert {cause for cause, code in EXIT_CODES.items() if code == 0} == {Cause.STOPPED, Cause.LEFT, Cause.SHUT_DOWN}
