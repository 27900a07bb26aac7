"""The guest service's vigil: what is judged, what is never judged, and that nothing is started twice.

Time is a number that the tests give; there is no machine.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmapp.core.duration import LATE
from cmapp.core.reading import ENDINGS, Reading, Word
from cmapp.core.vigil import CHECK_LIMIT, QUESTION_LIMIT, Rules, Vigil
from cmapp.core.vm import TABLE, TIMERS, Action, Event, State
from cmapp.core.vmending import Cause
from tests.core.vm_bed import DOWN, RUNS, UNTOLD, running, vigil

A, E, S = Action, Event, State
CLOCKS = {event for timers in TIMERS.values() for event in timers}
GONE = (E.DOWN, E.ELSEWHERE, E.VANISHED)


# ---- start -------------------------------------------------------------------------------------------------


def test_a_machine_that_is_down_is_started_after_asking_around() -> None:
    """First its server is called: if it answers, the machine runs on another host."""
    made = vigil()
    assert made.read(DOWN, 0) == (A.CALL,)
    assert made.clock(CHECK_LIMIT) == (A.START,)
    assert made.step(E.STARTED, 5) == ()
    assert (made.state, made.ready) == (S.AWAITING, False)
    assert made.step(E.ANSWERED, 30) == (A.TELL_READY,)
    assert (made.state, made.ready) == (S.RUNNING, True)


def test_a_machine_whose_server_answers_is_not_started() -> None:
    """It runs elsewhere, whatever libvirt here and whoever starts us say."""
    made = vigil(alone=True)
    made.read(DOWN, 0)
    assert made.step(E.ANSWERED, 0.5) == (A.CONCLUDE,)
    assert made.ending is not None
    assert (made.ending.cause, made.ending.exit_code) == (Cause.ELSEWHERE, 122)


@pytest.mark.parametrize("word", [Word.ELSEWHERE, Word.UNKNOWN])
def test_what_may_run_elsewhere_is_not_started(word: Word) -> None:
    """Not without somebody's word that it does not, and then only if libvirt can tell that it is not here."""
    made = vigil()
    assert A.START not in made.read(Reading(word), 0)
    assert made.state is {Word.ELSEWHERE: S.ENDED, Word.UNKNOWN: S.LOOKING}[word]
    made = vigil(alone=True)
    assert made.read(Reading(word), 0) == {Word.ELSEWHERE: (A.CALL,), Word.UNKNOWN: ()}[word]


def test_nobody_tells_until_the_start_is_late() -> None:
    """Then it is given up, as unknown, and was not started."""
    made = vigil(start_timeout=60)
    for second in range(0, 58, 2):
        assert made.read(UNTOLD, second) == ()
    assert made.clock(60) == (A.CONCLUDE,)
    assert made.ending is not None
    assert (made.ending.cause, made.ending.exit_code) == (Cause.UNTOLD, 123)
    assert "no word" in made.ending.text


def test_only_adopted() -> None:
    """Who must not start it ends instead."""
    made = vigil(adopt=True)
    assert made.read(DOWN, 0) == (A.CONCLUDE,)
    assert made.ending is not None
    assert made.ending.cause is Cause.ABSENT


def test_a_stop_while_it_is_started_waits_for_the_start() -> None:
    """Or it would be started after it was stopped."""
    made = vigil(attended=False)
    made.read(DOWN, 0)
    made.clock(0)
    assert made.step(E.STOP_WANTED, 1) == ()
    assert made.read(DOWN, 2) == ()
    assert A.SHUT_DOWN in made.step(E.STARTED, 3)
    assert made.state is S.STOPPING
    made.read(DOWN, 4)
    assert made.ending is not None
    assert made.ending.cause is Cause.STOPPED


def test_not_ready_in_time() -> None:
    """A machine whose server never answered is looked at twice, and then forced."""
    made = vigil(start_timeout=100)
    made.read(RUNS, 0)
    assert made.clock(100) == (A.QUESTION,)
    assert made.step(E.ALIVE, 101) == (A.FORCE,)
    made.read(DOWN, 102)
    assert made.ending is not None
    assert (made.ending.cause, made.ending.exit_code) == (Cause.NOT_READY, 124)


# ---- heartbeat ---------------------------------------------------------------------------------------------


def test_a_silent_server_is_looked_at_twice_before_the_machine_is_forced() -> None:
    """The bound passes, libvirt says that it runs, nobody in it answers: it hangs."""
    made = running(silence=45)
    assert made.clock(44.9) == ()
    assert made.clock(45) == (A.QUESTION,)
    assert made.read(RUNS, 46) == ()
    assert made.step(E.HUNG, 46) == (A.FORCE,)
    assert made.step(E.VANISHED, 47) == ()
    assert made.read(DOWN, 48) == (A.CONCLUDE,)
    assert made.ending is not None
    assert made.ending.cause is Cause.HUNG


def test_a_machine_may_be_left_as_it_is() -> None:
    """Whoever wants to look at a hung machine has it left."""
    made = running(leave=True)
    made.clock(45)
    assert made.step(E.HUNG, 46) == (A.CONCLUDE,)
    assert made.ending is not None
    assert made.ending.cause is Cause.HUNG
    assert "left as it is" in made.ending.text


@pytest.mark.parametrize(
    ("event", "state"),
    [(E.ANSWERED, S.RUNNING), (E.ALIVE, S.AWAITING), (E.PAUSES, S.PAUSED), (E.MIGRATES, S.MIGRATING)],
    ids=lambda each: each.value,
)
def test_the_second_look_spares_it(event: Event, state: State) -> None:
    """A late answer, an agent that answers, a pause: none of them is a hang."""
    made = running()
    made.clock(45)
    assert A.FORCE not in made.step(event, 46)
    assert made.state is state


def test_a_second_look_without_an_answer_is_no_judgement() -> None:
    """If libvirt does not answer either, nobody can tell."""
    made = running()
    made.clock(45)
    assert made.clock(45 + QUESTION_LIMIT) == ()
    assert made.state is S.DOUBTFUL


@pytest.mark.parametrize("event", [E.PAUSES, E.MIGRATES, E.UNTOLD], ids=lambda event: event.value)
def test_the_silence_of_a_machine_that_stands_still_is_not_judged(event: Event) -> None:
    """And once it runs again, it has the whole time anew."""
    made = running(silence=45, doubt_timeout=10000)
    made.step(event, 40)
    assert made.clock(1000) == ()
    made.read(RUNS, 1000)
    assert made.clock(1044) == ()
    assert made.clock(1045) == (A.QUESTION,)


def test_a_clock_that_is_much_too_late_judges_nobody() -> None:
    """Its process, or its host, stood still."""
    made = running(silence=45)
    assert made.clock(45 + LATE + 0.1) == ()
    assert made.overslept > LATE
    assert made.clock(90 + LATE) == ()


# ---- standing still, and not being told --------------------------------------------------------------------


def test_an_io_error_is_waited_for_and_then_forced() -> None:
    """It is told from a pause that somebody wants, which is waited for without end."""
    made = running(stall_timeout=60)
    made.read(Reading(Word.PAUSED, "io-error", "disk"), 10)
    assert made.state is S.STALLED
    assert made.clock(70) == (A.FORCE,)
    made.read(DOWN, 71)
    assert made.ending is not None
    assert made.ending.cause is Cause.STALLED


def test_a_witness_keeps_the_doubt_from_ending() -> None:
    """As long as its process lives, or its server answers, nobody gives it up."""
    made = running(doubt_timeout=300)
    made.read(UNTOLD, 0)
    for second in range(100, 2000, 100):
        made.step(E.WITNESSED if second % 200 else E.ANSWERED, second)
        assert made.clock(second) == ()
    assert made.clock(1900 + 300) == (A.CONCLUDE,)
    assert made.ending is not None
    assert made.ending.cause is Cause.UNTOLD


def test_a_process_that_ended_waits_for_the_reason() -> None:
    """Libvirt says why, a moment later; if it cannot, the end is told without."""
    made = running()
    made.step(E.VANISHED, 0)
    made.read(Reading(Word.DOWN, "shutdown", "it was shut down"), 1)
    assert made.ending is not None
    assert (made.ending.cause, made.ending.exit_code) == (Cause.SHUT_DOWN, 0)
    made = running()
    made.read(UNTOLD, 0)
    made.step(E.VANISHED, 1)
    assert made.ending is not None
    assert (made.ending.cause, made.ending.exit_code) == (Cause.GONE, 1)


@pytest.mark.parametrize("detail", sorted(ENDINGS | {"", "undefined"}))
def test_each_end_has_its_cause(detail: str) -> None:
    """What libvirt says of the end is what is told."""
    made = running()
    word = Word.ELSEWHERE if detail in ("migrated", "undefined") else Word.DOWN
    made.read(Reading(word, detail, "because"), 1)
    assert made.ending is not None
    assert "because" in made.ending.text
    expected = {"shutdown": 0, "saved": 0, "migrated": 122}
    assert made.ending.exit_code == expected.get(detail, 1)


# ---- any story ---------------------------------------------------------------------------------------------

HAPPENINGS = st.sampled_from([event for event in E if event not in CLOCKS and event is not E.BROKEN])
STORIES = st.lists(st.one_of(HAPPENINGS, st.floats(0.1, 400)), max_size=40)
RULES = st.builds(
    Rules,
    attended=st.booleans(),
    alone=st.booleans(),
    adopt=st.booleans(),
    leave=st.booleans(),
)


@given(STORIES, RULES)
@settings(max_examples=400, deadline=None)
def test_any_story(story: list[Event | float], rules: Rules) -> None:
    """One start at most; one ending, and never that it is gone without being told so."""
    seen: list[Action] = []
    now, made, told_gone = 0.0, Vigil(rules, 0.0), False
    for item in story:
        if isinstance(item, float):
            now += item
            actions = made.clock(now)
        elif TABLE[made.state, item] is None or (item in (E.STARTED, E.NOT_STARTED) and made.state is not S.STARTING):
            continue
        else:
            before = made.ending
            actions = made.step(item, now)
            told_gone |= item in (*GONE, E.ABSENT) and before is None
        seen += actions
    assert seen.count(A.START) <= 1
    assert not (rules.adopt and A.START in seen)
    assert seen.count(A.CONCLUDE) == (made.ending is not None)
    if made.ending is not None and made.ending.cause in (
        Cause.GONE,
        Cause.CRASHED,
        Cause.DESTROYED,
        Cause.SHUT_DOWN,
        Cause.ABSENT,
    ):
        assert told_gone or (made.ending.cause is Cause.CRASHED and E.PANICKED in story)
