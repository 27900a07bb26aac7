"""What is said of a virtual machine, on a pipe or by a command: nothing becomes `down` that nobody has said."""

from __future__ import annotations

import pytest

from cmapp.core.reading import PANICKED, TROUBLES, Reading, Word, read, read_command
from cmapp.core.vigil import event_of
from cmapp.core.vm import READINGS, Event

E = Event


@pytest.mark.parametrize("word", Word, ids=lambda word: word.value)
def test_a_reading_survives_its_line(word: Word) -> None:
    """What is said on the pipe is what is heard."""
    said = Reading(word, "user", "paused on request")
    assert read(said.line()) == said
    assert event_of(said) in READINGS


@pytest.mark.parametrize("line", ["", "state", "state\tdown", "note\tdown\t\t", "state\trunnin\t\t", "\tdown\t\t"])
def test_a_line_that_is_none_is_unknown(line: str) -> None:
    """Nothing becomes `down` that was not said to be."""
    assert read(line).how is Word.UNKNOWN


@pytest.mark.parametrize(
    ("output", "code", "word"),
    [
        ("running", 0, Word.RUNNING),
        ("down: switched off", 0, Word.DOWN),
        ("paused\nby hand", 7, Word.PAUSED),
        ("", 0, Word.RUNNING),
        ("", 3, Word.DOWN),
        ("", 1, Word.UNKNOWN),
        ("", None, Word.UNKNOWN),
        ("no idea", 4, Word.UNKNOWN),
        ("unknown", 0, Word.UNKNOWN),
        ("downtown", 1, Word.UNKNOWN),
    ],
)
def test_a_state_command_tells_by_its_word_or_its_code(output: str, code: int | None, word: Word) -> None:
    """As LSB's status does: 0 runs, 3 does not; whatever else it says is unknown."""
    assert read_command(output, code).how is word


def test_pauses_are_told_apart() -> None:
    """One that somebody wants, one by a fault, and a guest that has panicked."""
    assert {event_of(Reading(Word.PAUSED, detail)) for detail in TROUBLES} == {E.STALLS}
    assert event_of(Reading(Word.PAUSED, PANICKED)) is E.PANICKED
    assert event_of(Reading(Word.PAUSED, "user")) is E.PAUSES
