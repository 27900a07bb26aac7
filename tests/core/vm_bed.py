"""Vigils for tests: one that has just begun, and one whose machine runs."""

from __future__ import annotations

from cmapp.core.reading import Reading, Word
from cmapp.core.vigil import Rules, Vigil
from cmapp.core.vm import Event, State

DOWN, RUNS, UNTOLD = (
    Reading(Word.DOWN, "", "it is shut off"),
    Reading(Word.RUNNING),
    Reading(Word.UNKNOWN, "", "no word"),
)


def vigil(**rules: object) -> Vigil:
    """Return a vigil that has just begun."""
    return Vigil(Rules(**rules), 0.0)  # type: ignore[arg-type]


def running(**rules: object) -> Vigil:
    """Return the vigil of a machine that was found running and whose server has answered at 0."""
    made = vigil(**rules)
    made.read(RUNS, 0)
    made.step(Event.ANSWERED, 0)
    assert made.state is State.RUNNING
    assert made.ready
    return made
