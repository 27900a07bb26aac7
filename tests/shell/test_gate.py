"""Who may come in: stories of arrivals in which everybody has a name and the clock is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmapp.guest.gate import LEAST_PATIENCE, PATIENCE, Gate, Roll

# What happens, one word a step: `+a1` comes from source `a`, `!a1` speaks, `?a1` owes us its part, `~a1` goes on,
# `>` lets the next begin, `=a1` gets in, `-a1` goes, and a number is so many seconds. What comes of it is `a1` who
# begins, `a1/b2` who begins in the place of b2, `x/b2` where b2 goes for one who comes, or `.` for nobody.
STORIES = {
    "one comes, speaks and begins": ("+a1 > !a1 >", ". a1"),
    "who says nothing does not begin": ("+a1 +b1 !b1 > >", "b1 ."),
    "in the order in which they spoke": ("+a1 +a2 !a2 !a1 > >", "a2 a1"),
    "sources take turns": ("+a1 +a2 +a3 +b1 !a1 !a2 !a3 !b1 > > >", "a1 b1 a2"),
    "no more than two of one source": ("+a1 +a2 +a3 !a1 !a2 !a3 > > >", "a1 a2 ."),
    "who got in makes room": ("+a1 +a2 +a3 !a1 !a2 !a3 > > =a1 >", "a1 a2 a3"),
    "who went makes room": ("+a1 +a2 +a3 !a1 !a2 !a3 > > -a2 >", "a1 a2 a3"),
    "who went does not begin": ("+a1 +a2 !a1 !a2 -a1 > >", "a2 ."),
    "a source waits for its own first": ("+a1 +a2 +a3 !a1 !a2 !a3 > > ?a1 ?a2 0.9 > 0.1 >", "a1 a2 . a3/a1"),
    "with who owes us nothing it is patient": ("+a1 +a2 +a3 !a1 !a2 !a3 > > 9 >", "a1 a2 ."),
    "a little at a time wins nothing": (
        "+a1 +a2 +a3 !a1 !a2 !a3 > > ?a1 ?a2 0.5 ~a1 ?a1 0.5 >",
        "a1 a2 a3/a1",
    ),
    "nobody goes for our being slow": ("+a1 +a2 +a3 !a1 !a2 !a3 > > ?a1 ?a2 1 ~a1 >", "a1 a2 a3/a2"),
    "after one that gave way half as long": (
        "+a1 +a2 +a3 +a4 !a1 !a2 !a3 !a4 > > ?a1 ?a2 1 > ?a3 > 0.5 +a5 !a5 >",
        "a1 a2 a3/a1 a4/a2 a5/a3",
    ),
    "others come in while a source is full": ("+a1 +a2 +a3 +b1 !a1 !a2 !a3 > > > !b1 >", "a1 a2 . b1"),
    "who has more than its share makes room": (
        "+a1 +a2 +b1 +b2 +c1 !a1 !a2 !b1 !b2 > > > > !c1 >",
        "a1 b1 a2 b2 c1/a1",
    ),
    "one each is nobody's too much": (
        "+a1 +b1 +c1 +d1 +e1 !a1 !b1 !c1 !d1 > > > > ?a1 ?b1 ?c1 ?d1 !e1 > 1 >",
        "a1 b1 c1 d1 . e1/a1",
    ),
    "the first of the largest crowd goes": ("+a1 +a2 +a3 +b1 +b2 +c1", "x/a1"),
    "who makes the largest crowd goes itself": ("+a1 +b1 +c1 +d1 +e1 +e2", "x/e1"),
    "who has spoken may have to go as well": ("+a1 +a2 +a3 !a1 +b1 +b2 +c1 >", "x/a1 ."),
    "who begins waits no more": ("+a1 !a1 > +a2 +a3 +a4 +a5 +b1 +b2", "a1 x/a2"),
}


class Play:
    """A gate for four handshakes, two of a source, and five who wait; `a1` is from source `a`."""

    def __init__(self) -> None:
        self.gate: Gate[str] = Gate(most=4, each=2, waiting=5)
        self.now = 100.0

    def step(self, word: str) -> str:
        """Have something happen; return what comes of it, if that is anything."""
        sign, who = word[0], word[1:]
        goes: str | None = None
        if sign == "+":
            goes = self.gate.come(who, who[0], self.now)
        elif sign == ">":
            found = self.gate.next(self.now)
            if found is None:
                return "."
            begins, goes = found
            return f"{begins}/{goes}" if goes else begins
        elif sign == "?":
            self.gate.owes(who, self.now)
        elif sign.isdigit():
            self.now += float(word)
        else:
            {"!": self.gate.speak, "~": self.gate.goes_on, "=": self.gate.enter, "-": self.gate.leave}[sign](who)
        return f"x/{goes}" if goes else ""


@pytest.mark.parametrize(("story", "told"), STORIES.values(), ids=STORIES)
def test_story(story: str, told: str) -> None:
    """Each begins, waits or goes as the story tells."""
    play = Play()
    assert " ".join(filter(None, map(play.step, story.split()))) == told


def test_patience_has_bounds() -> None:
    """A source that keeps us waiting is waited for ever shorter, and as before once its callers get in."""
    gate: Gate[int] = Gate(most=1, each=1, waiting=100)
    now, waits = 0.0, []
    for number in range(40):
        gate.come(number, "a", now)
        gate.speak(number)
    assert gate.next(now) == (0, None)
    for number in range(20):
        gate.owes(number, now)
        began = now
        while (found := gate.next(now)) is None:
            now += LEAST_PATIENCE / 10
        assert found == (number + 1, number)
        waits.append(round(now - began, 4))
    assert waits == sorted(waits, reverse=True)
    assert waits[0] == pytest.approx(PATIENCE, abs=LEAST_PATIENCE)
    assert waits[-1] == pytest.approx(LEAST_PATIENCE, abs=LEAST_PATIENCE / 5)
    for number in range(20, 32):
        gate.enter(number)
        assert gate.next(now) == (number + 1, None)
    gate.owes(32, now)
    assert gate.next(now + PATIENCE * 0.9) is None


def test_who_is_late() -> None:
    """Whoever says nothing, or does not come through its handshake, is named; not who waits because of others."""
    gate: Gate[str] = Gate(most=4, each=4, waiting=9)
    for number, who in enumerate("abcd"):
        gate.come(who, "s", float(number))
    gate.speak("a")
    assert gate.next(4.0) == ("a", None)
    gate.speak("c")
    assert list(gate.late(13.5, 10.0)) == ["b", "d"]
    assert list(gate.late(14.5, 10.0)) == ["b", "d", "a"]
    gate.enter("a")
    gate.leave("b")
    gate.leave("b")
    assert list(gate.late(99.0, 10.0)) == ["d"]
    assert len(gate) == 2


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("+!>?~=-t"), st.integers(0, 30)), max_size=150))
def test_any_story_keeps_the_bounds(steps: list[tuple[str, int]]) -> None:  # noqa: C901 - a branch for each step
    """Whatever happens in whatever order, the bounds hold, nobody begins twice, and nobody is forgotten."""
    gate: Gate[int] = Gate(most=3, each=2, waiting=6)
    waiting, spoken, shaking = set[int](), set[int](), set[int]()
    now = 0.0
    for sign, number in steps:
        goes: int | None = None
        if sign == "+" and number not in waiting | shaking:
            goes = gate.come(number, f"s{number % 4}", now)
            waiting.add(number)
        elif sign == "!" and number in waiting - spoken:
            gate.speak(number)
            spoken.add(number)
        elif sign == ">" and (found := gate.next(now)):
            begins, goes = found
            assert begins in waiting & spoken
            waiting.discard(begins)
            shaking.add(begins)
        elif sign == "?" and number in shaking:
            gate.owes(number, now)
        elif sign == "~" and number in shaking:
            gate.goes_on(number)
        elif sign in "=-" and number in shaking:
            (gate.enter if sign == "=" else gate.leave)(number)
            shaking.discard(number)
        elif sign == "-":
            gate.leave(number)
            waiting.discard(number)
        elif sign == "t":
            now += number / 20
        for place in (waiting, shaking):
            place.discard(-1 if goes is None else goes)
        spoken &= waiting
        assert len(waiting) <= 6
        assert len(shaking) <= 3
        assert all(sum(who % 4 == source for who in shaking) <= 2 for source in range(4))
        assert len(gate) == len(waiting) + len(shaking)
        assert gate.pressed == bool(spoken)
    while spoken:  # everybody who has spoken gets its turn in the end
        for who in shaking:
            gate.leave(who)
        shaking = set()
        found = gate.next(now)
        assert found is not None
        spoken.discard(found[0])
        shaking.add(found[0])


def test_roll() -> None:
    """Managers are counted in all and by name, and who leaves makes room."""
    roll: Roll[int] = Roll(most=3, each=2)
    assert [roll.enter(number, "n1") for number in range(2)] == ["", ""]
    assert roll.enter(2, "n1") == "n1 has 2 connections, which is max_connections_per_manager"
    assert roll.enter(3, "n2") == ""
    assert roll.enter(4, "n3") == "3 managers are connected, which is max_connections"
    roll.leave(4)
    roll.leave(0)
    roll.leave(0)
    assert len(roll) == 2
    assert roll.enter(2, "n1") == ""
