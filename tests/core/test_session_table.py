"""When each word may be said: the session's table once more, by words, as a person would explain it."""

from __future__ import annotations

from itertools import product

import pytest

from cmapp.core.session import TABLE, Event, State

GREETED = {State.OPEN, State.LAUNCHING, State.WATCHING, State.ENDED}
HAD_A_RUN = {State.WATCHING, State.ENDED}

WHEN: dict[Event, set[State]] = {
    Event.HELLO: {State.NEW},
    Event.WELCOME: {State.GREETING},
    Event.HELLO_REFUSED: {State.GREETING},
    Event.LAUNCH: {State.OPEN},
    Event.LAUNCHED: {State.LAUNCHING},
    Event.LAUNCH_REFUSED: {State.LAUNCHING},
    Event.READY: {State.WATCHING},
    Event.EXITED: {State.WATCHING},
    Event.OUTPUT: HAD_A_RUN,
    Event.TAIL: HAD_A_RUN,
    Event.DETACH: HAD_A_RUN,
    Event.DETACHED: HAD_A_RUN,
    Event.ACKNOWLEDGE: {State.OPEN, State.ENDED},
    Event.HOLD: {State.OPEN, State.ENDED},
    Event.POLL: GREETED,
    Event.STOP: GREETED,
    Event.STATUS: GREETED,
    Event.REPORT: GREETED,
    Event.DONE: GREETED,
    Event.RUNS: GREETED,
    Event.REFUSED: GREETED,
    Event.UNRECOGNIZED: GREETED,
    Event.BYE: set(State),
}
WHERE_TO: dict[Event, State] = {
    Event.HELLO: State.GREETING,
    Event.WELCOME: State.OPEN,
    Event.HELLO_REFUSED: State.CLOSED,
    Event.LAUNCH: State.LAUNCHING,
    Event.LAUNCHED: State.WATCHING,
    Event.LAUNCH_REFUSED: State.OPEN,
    Event.EXITED: State.ENDED,
    Event.DETACHED: State.ENDED,
    Event.BYE: State.CLOSED,
}


def test_every_pair_is_in_the_table() -> None:
    """Every event has an entry in every state, the illegal ones too."""
    assert set(TABLE) == set(product(State, Event))


@pytest.mark.parametrize("event", Event, ids=lambda event: event.value)
def test_each_word_has_its_time(event: Event) -> None:
    """A word may be said in these states and in no other: an end, say, once, of a run that was launched."""
    assert {state for state in State if TABLE[state, event] is not None} == WHEN[event]


@pytest.mark.parametrize("event", Event, ids=lambda event: event.value)
def test_each_word_leads_to_one_state(event: Event) -> None:
    """A word leads to the same state wherever it is said, or leaves it as it is."""
    led = {TABLE[state, event] for state in WHEN[event]}
    assert led == ({WHERE_TO[event]} if event in WHERE_TO else WHEN[event])
