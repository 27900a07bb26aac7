"""The second opinion on a guest out of reach: what an answer says, and what a pursuit makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core.opinion import Doubt, Opinion, opinion_of
from cmapp.core.outcome import GuestDown, Own, Unreachable, describe, exit_code
from cmapp.core.patience import OPINION_EVERY, OPINION_LIMIT
from cmapp.core.pursuit import LINKED, RETURNING, SEEKING, Action, Event, Patience, Pursuit, State
from cmapp.core.reading import Word
from tests.core.pursuit_story import GONE, pursuit_in

A, E, S = Action, Event, State
ASKING = Patience(link_timeout=20, asks=True, pause_timeout=100)
END = (A.HANG_UP, A.CONCLUDE)
SAID = {word: Opinion(word, f"{word.value} (as they say)") for word in Word}
out_of_reach = pytest.mark.parametrize("state", [*SEEKING, *RETURNING], ids=lambda state: state.value)


@pytest.mark.parametrize(
    ("answer", "state", "text"),
    [
        (b"running\n", Word.RUNNING, "running"),
        (b"paused (I/O error)\n", Word.PAUSED, "paused (I/O error)"),
        (b"  MIGRATING: to n2\nand more", Word.MIGRATING, "MIGRATING: to n2 and more"),
        (b"down, crashed", Word.DOWN, "down, crashed"),
        (b"elsewhere", Word.ELSEWHERE, "elsewhere"),
        (b"unknown: no libvirtd", Word.UNKNOWN, "unknown: no libvirtd"),
        (b"downtown", Word.UNKNOWN, "unknown: the answer was 'downtown'"),
        (b"it is down", Word.UNKNOWN, "unknown: the answer was 'it is down'"),
        (b"", Word.UNKNOWN, "unknown: no answer"),
        (b" \n", Word.UNKNOWN, "unknown: no answer"),
        (b"paused \x1b[2J\xff", Word.PAUSED, "paused \\x1b[2J\ufffd"),
    ],
)
def test_first_word_counts(answer: bytes, state: Word, text: str) -> None:
    """The first word, in any case of letters, and nothing that could be mistaken for it; all is safe to be logged."""
    assert opinion_of(answer) == Opinion(state, text)


@given(st.binary(max_size=5000))
def test_any_answer_is_understood_or_unknown(answer: bytes) -> None:
    """Whatever a command writes is one line of bounded length."""
    opinion = opinion_of(answer)
    assert opinion.text.isprintable()
    assert len(opinion.text) < 400
    first = answer.split()[:1]
    if opinion.state is not Word.UNKNOWN:
        assert first
        assert first[0].decode().rstrip(":,;.").lower() == opinion.state.value


def test_a_lost_guest_is_asked_about_at_once_and_then_now_and_then() -> None:
    """The first question comes with the loss, each other one a while after an answer, and one at a time."""
    pursuit = pursuit_in(S.WATCHING, ASKING)
    pursuit.step(E.LINK_LOST, 0.0, GONE)
    assert pursuit.clock(0.0) == (A.ASK,)
    while (pursuit.deadline or 0.0) < 3.0:
        assert A.ASK not in pursuit.clock(pursuit.deadline or 0.0)
    assert pursuit.opine(SAID[Word.RUNNING], 3.0) == ()
    asked: list[float] = []
    while not asked:
        now = pursuit.deadline or 0.0
        asked = [now for action in pursuit.clock(now) if action is A.ASK]
    assert asked == [3.0 + OPINION_EVERY]


def test_nobody_is_asked_without_anybody_to_ask() -> None:
    """Whoever has no second opinion gives up as ever."""
    pursuit = pursuit_in(S.AWAY, ASKING.replace(asks=False))
    assert A.ASK not in until_the_end(pursuit)
    assert isinstance(pursuit.verdict, Unreachable)


@pytest.mark.parametrize("state", RETURNING, ids=lambda state: state.value)
def test_a_guest_that_is_down_ends_the_wait(state: State) -> None:
    """At once, with a verdict of its own, which says who said so."""
    pursuit = pursuit_in(state, ASKING)
    pursuit.clock(0.0)
    assert pursuit.opine(SAID[Word.DOWN], 1.0) == END
    assert pursuit.verdict == GuestDown("the link was lost; down (as they say)")
    assert exit_code(pursuit.verdict) == Own.UNREACHABLE
    assert describe(pursuit.verdict).startswith("is gone with its guest, which is down: ")


@pytest.mark.parametrize("word", set(Word) - {Word.DOWN}, ids=sorted(word.value for word in set(Word) - {Word.DOWN}))
@out_of_reach
def test_nothing_else_ends_it(state: State, word: Word) -> None:
    """What is not plainly down is never taken for it; and a guest that was not reached yet may still boot."""
    pursuit = pursuit_in(state, ASKING)
    pursuit.clock(0.0)
    assert pursuit.opine(SAID[word], 1.0) == ()
    assert pursuit.state is not S.CONCLUDED


@pytest.mark.parametrize("state", SEEKING, ids=lambda state: state.value)
def test_a_guest_that_is_down_may_still_be_started(state: State) -> None:
    """Before the first connection it is tried on: who starts the guest may be slower than who starts its manager."""
    pursuit = pursuit_in(state, ASKING)
    pursuit.clock(0.0)
    assert pursuit.opine(SAID[Word.DOWN], 1.0) == ()


@pytest.mark.parametrize("link", [0.5, 20])
@pytest.mark.parametrize("word", [Word.PAUSED, Word.MIGRATING])
def test_a_guest_that_stands_still_has_more_time(word: Word, link: float) -> None:
    """Each answer gives it the whole wait again, up to a bound from the first one on, however short that wait is."""
    pursuit = pursuit_in(S.AWAY, ASKING.replace(link_timeout=link))
    ended = last_at(pursuit, word)
    assert ended == pytest.approx(100)
    assert isinstance(pursuit.verdict, Unreachable)
    assert f"of the guest it is said: {word.value} (as they say)" in pursuit.verdict.text


@pytest.mark.parametrize("word", [Word.RUNNING, Word.ELSEWHERE, Word.UNKNOWN])
def test_another_guest_has_not(word: Word) -> None:
    """A guest that runs, or of which nothing is known, is given up when it always was; the verdict says which."""
    pursuit = pursuit_in(S.AWAY, ASKING)
    assert last_at(pursuit, word) == pytest.approx(20)
    assert isinstance(pursuit.verdict, Unreachable)
    assert word.value in pursuit.verdict.text


def test_giving_up_waits_for_the_answer() -> None:
    """However short the wait is: who is asked is heard first, and whoever says "paused" then still counts."""
    pursuit = pursuit_in(S.WATCHING, ASKING.replace(link_timeout=0))
    pursuit.step(E.LINK_LOST, 0.0, GONE)
    actions = pursuit.clock(0.0)
    assert A.ASK in actions
    assert A.CONCLUDE not in actions
    for now in (1.0, OPINION_LIMIT - 1):
        assert A.CONCLUDE not in pursuit.clock(now)
    pursuit.opine(SAID[Word.RUNNING], OPINION_LIMIT)
    assert A.CONCLUDE in pursuit.clock(OPINION_LIMIT)


def test_a_first_connection_is_not_given_up_unasked() -> None:
    """Even if nobody was asked yet when its time is over."""
    pursuit = pursuit_in(S.WAITING, ASKING.replace(connect_timeout=1))
    actions = pursuit.clock(1.0)
    assert A.ASK in actions
    assert A.CONCLUDE not in actions
    pursuit.opine(SAID[Word.DOWN], 2.0)
    assert A.CONCLUDE in pursuit.clock(2.0)
    assert isinstance(pursuit.verdict, Unreachable)
    assert "down (as they say)" in pursuit.verdict.text


@pytest.mark.parametrize("word", Word, ids=lambda word: word.value)
@pytest.mark.parametrize("state", LINKED, ids=lambda state: state.value)
def test_an_answer_after_the_return_is_no_matter(state: State, word: Word) -> None:
    """The guest itself knows better."""
    pursuit = pursuit_in(state, ASKING)
    before = pursuit.deadline
    assert pursuit.opine(SAID[word], 1.0) == ()
    assert (pursuit.state, pursuit.deadline) == (state, before)


def test_an_answer_from_before_the_return_says_nothing_of_the_next_loss() -> None:
    """Between question and answer the guest was back: that it was down then is old."""
    pursuit = pursuit_in(S.AWAY, ASKING)
    pursuit.clock(0.0)
    for event in (E.RETRY_DUE, E.CONNECTED, E.WELCOMED, E.LAUNCHED, E.LINK_LOST):
        pursuit.step(event, 1.0, GONE)
    assert pursuit.opine(SAID[Word.DOWN], 2.0) == ()
    assert pursuit.state is S.AWAY
    assert A.ASK in until_asked(pursuit)


def test_a_held_run_is_not_given_up_for_it() -> None:
    """Whoever holds it may well have switched its guest off; whoever stops it wants to hear that there is none."""
    pursuit = pursuit_in(S.AWAY, ASKING)
    pursuit.held = True
    pursuit.clock(0.0)
    assert pursuit.opine(SAID[Word.DOWN], 1.0) == ()
    pursuit.step(E.SIGNALED, 2.0)
    until_asked(pursuit)
    assert pursuit.opine(SAID[Word.DOWN], 8.0) == END


def test_a_doubt_forgets() -> None:
    """Once settled, nothing of it is left, and time that stood still is counted anew."""
    doubt = Doubt()
    assert doubt.open(0.0)
    assert doubt.hear(SAID[Word.PAUSED])
    assert (doubt.until(5.0, 10.0), doubt.until(9.0, 10.0)) == (15.0, 15.0)
    assert (doubt.open(14.0), doubt.open(15.0)) == (True, False)
    doubt.settle()
    assert doubt.open(0.0)
    assert doubt.hear(SAID[Word.PAUSED])
    assert doubt.until(50.0, 10.0) == 60.0


def until_asked(pursuit: Pursuit) -> tuple[Action, ...]:
    """Follow the clock to the next question; return all that was done."""
    actions: tuple[Action, ...] = ()
    while A.ASK not in actions:
        assert pursuit.deadline is not None
        actions += pursuit.clock(pursuit.deadline)
    return actions


def until_the_end(pursuit: Pursuit) -> tuple[Action, ...]:
    """Follow the clock until it has concluded; return all that was done."""
    actions: tuple[Action, ...] = ()
    while pursuit.deadline is not None:
        actions += pursuit.clock(pursuit.deadline)
    return actions


def last_at(pursuit: Pursuit, word: Word) -> float:
    """Answer every question so, at once; return when the pursuit has concluded."""
    now = 0.0
    while pursuit.deadline is not None:
        now = pursuit.deadline
        if A.ASK in pursuit.clock(now):
            pursuit.opine(SAID[word], now)
    return now
