"""The guest service's vigil when the machine is to stop: asked, asked again, forced, proven; or told that it is not."""

from __future__ import annotations

import pytest

from cmapp.core.reading import ENDING, Reading, Word
from cmapp.core.vigil import ASK_AGAIN
from cmapp.core.vm import Action, Event, State
from cmapp.core.vmending import Cause
from tests.core.vm_bed import DOWN, RUNS, UNTOLD, running, vigil

A, E, S = Action, Event, State


def test_a_stop_asks_again_and_again_then_forces_then_kills() -> None:
    """A guest that boots does not hear the first request; one that ignores them all has its power cut."""
    made = running(stop_timeout=2.5 * ASK_AGAIN)
    assert made.step(E.STOP_WANTED, 0) == (A.SHUT_DOWN,)
    assert made.clock(ASK_AGAIN) == (A.SHUT_DOWN,)
    assert made.clock(2 * ASK_AGAIN) == (A.SHUT_DOWN,)
    assert made.clock(2.5 * ASK_AGAIN) == (A.FORCE,)
    assert made.step(E.NOT_FORCED, 13) == (A.KILL,)
    assert made.step(E.VANISHED, 14) == ()
    assert made.read(UNTOLD, 15) == (A.CONCLUDE,)
    assert made.ending is not None
    assert (made.ending.cause, made.ending.exit_code) == (Cause.STOPPED, 0)


@pytest.mark.parametrize("word", [Word.DOWN, Word.ELSEWHERE])
def test_what_is_not_here_is_not_shut_down(word: Word) -> None:
    """A stop looks first: on a machine that has moved, another host's commands are not let loose."""
    made = vigil(alone=True)
    assert made.step(E.STOP_WANTED, 0) == ()
    assert made.read(Reading(word), 1) == (A.CONCLUDE,)
    assert made.ending is not None
    assert made.ending.cause is Cause.STOPPED


@pytest.mark.parametrize("reading", [RUNS, UNTOLD], ids=lambda reading: reading.how.value)
def test_what_is_here_or_may_be_is_shut_down(reading: Reading) -> None:
    """Also when nobody can tell."""
    made = vigil()
    made.step(E.STOP_WANTED, 0)
    assert A.SHUT_DOWN in made.read(reading, 1)
    assert made.state is S.STOPPING


def test_a_stop_before_the_start() -> None:
    """Who is asked to stop while it asks around has nothing to stop."""
    made = vigil()
    made.read(DOWN, 0)
    assert made.step(E.STOP_WANTED, 0.5) == (A.CONCLUDE,)
    assert made.ending is not None
    assert made.ending.cause is Cause.STOPPED


def test_the_end_of_the_life_before_is_waited_for() -> None:
    """A start right after a stop finds a domain that libvirt has not yet cleared: it neither adopts nor starts that."""
    made = vigil(attended=False)
    assert made.read(Reading(Word.RUNNING, ENDING), 0) == ()
    assert made.state is S.LOOKING
    assert made.read(DOWN, 1) == (A.CALL,)


def test_a_crash_before_the_stop_is_a_crash() -> None:
    """What was asked for after the end has not brought it about."""
    made = running()
    made.step(E.VANISHED, 0)
    made.step(E.STOP_WANTED, 1)
    made.read(Reading(Word.DOWN, "crashed", "killed"), 2)
    assert made.ending is not None
    assert made.ending.cause is Cause.CRASHED


def test_a_stop_that_cannot_be_proven_fails() -> None:
    """The cluster has to fence then."""
    made = running()
    made.step(E.STOP_WANTED, 0)
    assert made.step(E.STOP_WANTED, 1) == (A.FORCE,)
    made.step(E.NOT_FORCED, 2)
    made.step(E.NOT_PROVEN, 3, "its processes cannot be seen")
    assert made.ending is not None
    assert made.ending.exit_code == 123
