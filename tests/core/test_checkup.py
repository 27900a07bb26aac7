"""Whether a run is healthy: what is counted, what is asked again, and what is forgotten."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core.checkup import SHORTEST, TABLE, TICK, Action, Checkup, Event, State
from cmapp.core.duration import LATE
from cmapp.core.rules import HealthRules
from cmapp.errors import StateError

ASK, KILL, TELL = (Action.ASK,), (Action.KILL,), (Action.TELL,)
RULES = HealthRules(command=("check",), interval=30.0, timeout=10.0, retries=3)


class World:
    """A clock, and a book of checks that is called whenever it wants to be."""

    def __init__(self, rules: HealthRules = RULES) -> None:
        self.now = 1000.0
        self.book = Checkup(rules, self.now)
        self.done: list[Action] = []

    def run(self, seconds: float) -> tuple[Action, ...]:
        """Let time pass, with the loop running; return what was to be done meanwhile."""
        end, done = self.now + seconds, len(self.done)
        while self.book.wake is not None and self.book.wake <= end:
            self.now = self.book.wake
            self.done += self.book.tick(self.now)
        self.now = end
        return tuple(self.done[done:])

    def stand_still(self, seconds: float) -> tuple[Action, ...]:
        """Let time pass without the loop."""
        self.now += seconds
        return self.book.tick(self.now)

    def answer(self, event: Event, detail: str = "") -> tuple[Action, ...]:
        """End the command."""
        return self.book.answer(event, self.now, detail)

    def fail(self) -> tuple[Action, ...]:
        """Wait for the next check, and have it fail after a second."""
        assert self.run(30) == ASK
        assert self.run(1) == ()
        return self.answer(Event.FAILED, "exited with code 2: could not connect")


def test_every_pair_is_in_the_table() -> None:
    """Every event has an entry in every state, the impossible ones too."""
    assert set(TABLE) == set(product(State, Event))


@pytest.mark.parametrize("pair", [pair for pair, entry in TABLE.items() if entry is None], ids=str)
def test_what_cannot_happen_is_a_defect_of_ours(pair: tuple[State, Event]) -> None:
    """An impossible event is not passed over."""
    book = Checkup(RULES, 0.0)
    book.state = pair[0]
    with pytest.raises(StateError):
        book._step(pair[1], 0.0)


def test_checks_follow_each_other() -> None:
    """The first check is due after one interval, each other one an interval after the end of the one before."""
    world = World()
    assert world.book.text == "not checked yet"
    assert world.run(29.9) == ()
    assert world.run(0.1) == ASK
    assert world.run(5) == ()
    assert world.answer(Event.PASSED) == ()
    assert world.book.text == "ok"
    assert world.run(29.9) == ()
    assert world.run(0.2) == ASK


def test_failures_in_a_row() -> None:
    """As many failures as the rules allow, one after the other, and the reason is told once."""
    world = World()
    assert world.fail() == ()
    assert world.book.text == "1 of 3 checks failed: exited with code 2: could not connect"
    assert world.fail() == ()
    assert world.fail() == TELL
    assert world.book.verdict == ("the health command failed 3 times in a row: exited with code 2: could not connect")
    assert world.run(1000) == ()
    assert world.book.hold(world.now, on=True) == world.book.hold(world.now, on=False) == ()
    assert world.run(1000) == ()


def test_success_in_between() -> None:
    """One success, and the counting begins again."""
    world = World()
    world.fail()
    world.fail()
    world.run(30)
    world.answer(Event.PASSED)
    assert world.book.text == "ok"
    assert world.fail() == ()
    assert world.book.failures == 1


def test_single_failure_is_enough_if_wanted() -> None:
    """With one retry the sentence has no number in it."""
    world = World(RULES.replace(retries=1))
    assert world.fail() == TELL
    assert world.book.verdict == "the health command failed: exited with code 2: could not connect"


def test_hung_command() -> None:
    """A command that gives no answer is killed, counted, waited for, and only then asked again."""
    world = World()
    world.run(30)
    assert world.run(9.9) == ()
    assert world.run(0.2) == KILL
    assert world.book.text == "1 of 3 checks failed: gave no answer within 10 s"
    assert world.run(1) == ()
    assert world.answer(Event.FAILED, "was killed by signal 9 (KILL)") == ()
    assert world.book.text == "1 of 3 checks failed: gave no answer within 10 s"
    assert world.run(29.9) == ()
    assert world.run(0.2) == ASK


def test_command_that_cannot_be_killed() -> None:
    """One that does not even end by SIGKILL counts on, and no other is started beside it."""
    world = World()
    assert world.run(30 + 10) == (*ASK, *KILL)
    assert world.run(30) == ()
    assert world.run(30) == TELL
    assert world.book.verdict == (
        "the health command failed 3 times in a row: gave no answer, and does not end by SIGKILL"
    )
    assert world.answer(Event.FAILED) == ()


def test_command_that_cannot_be_run() -> None:
    """A check that tells nothing is neither a success nor a failure."""
    world = World()
    world.fail()
    for _ in range(9):
        assert world.run(30) == ASK
        assert world.answer(Event.UNTOLD, "could not be run: there is no command\ncheck") == ()
    assert world.book.text == r"not checked: could not be run: there is no command\ncheck"
    assert world.fail() == ()
    assert world.book.failures == 2


@pytest.mark.parametrize("still", [LATE + TICK + 0.1, 9.0, 3600.0])
def test_pause_while_a_command_runs(still: float) -> None:
    """A command that failed, or timed out, across a pause is asked again, and not counted."""
    failing, hung = World(), World()
    for world in (failing, hung):
        world.run(30)
        assert world.stand_still(still) == ()
        assert world.book.state is State.DOUBTING
    assert failing.answer(Event.FAILED, "timed out") == ASK
    assert hung.run(9.9) == ()
    assert hung.run(0.2) == KILL
    assert hung.answer(Event.FAILED) == ()
    assert hung.run(30) == ASK
    assert failing.book.failures == hung.book.failures == 0
    assert failing.answer(Event.FAILED, "timed out") == hung.answer(Event.FAILED, "timed out") == ()
    assert failing.book.failures == hung.book.failures == 1


def test_pause_that_the_answer_ends() -> None:
    """The end of a command may be seen before the tick is: the pause is noticed all the same."""
    world = World()
    world.run(30)
    world.now += 60
    assert world.answer(Event.FAILED, "timed out") == ASK
    assert world.book.text == "not checked yet"
    world.now += 60
    assert world.answer(Event.PASSED) == ()
    assert world.book.text == "ok"


def test_pause_between_checks() -> None:
    """After a pause the application gets an interval to come to itself."""
    world = World()
    world.run(29)
    assert world.stand_still(60) == ()
    assert world.run(29.9) == ()
    assert world.run(0.2) == ASK


def test_pause_of_thousands() -> None:
    """Runs that come back from a pause together are not all asked at the same moment."""
    book = Checkup(RULES, 0.0, spread=0.5)
    assert book.wake == 30.0
    assert book.tick(100.0) == ()
    assert book.wake == 145.0
    assert book.disturb(200.0) == ()
    assert book.wake == 245.0
    assert book.tick(245.0) == ASK
    book.answer(Event.PASSED, 246.0)
    assert book.wake == 276.0


def test_pause_while_a_killed_command_ends() -> None:
    """Not to have ended across a pause is nothing that counts."""
    world = World()
    world.run(30 + 10)
    assert world.stand_still(60) == ()
    assert world.run(29.9) == ()
    assert world.book.failures == 1


def test_hold() -> None:
    """While the run is held nothing is asked; then everything begins afresh."""
    world = World()
    world.fail()
    assert world.book.hold(world.now, on=True) == ()
    assert world.run(3600) == ()
    assert world.book.hold(world.now, on=False) == ()
    assert world.book.text == "not checked yet"
    assert world.run(29.9) == ()
    assert world.run(0.2) == ASK


def test_hold_while_a_command_runs() -> None:
    """The command is killed, and however it ends, that is not counted; nor is another started beside it."""
    world = World()
    world.run(30)
    assert world.book.hold(world.now, on=True) == KILL
    assert world.book.hold(world.now, on=False) == ()
    assert world.run(29) == ()
    assert world.answer(Event.FAILED) == ()
    assert world.run(29.9) == ()
    assert world.run(0.2) == ASK
    assert world.book.hold(world.now, on=True) == KILL
    assert world.answer(Event.FAILED) == ()
    assert world.book.failures == 0
    assert world.run(3600) == ()


def test_shortest_interval() -> None:
    """Rules that leave no time at all do not keep the server busy with nothing else."""
    world = World(RULES.replace(interval=0.0, timeout=0.0))
    assert world.run(SHORTEST / 2) == ()
    assert world.run(SHORTEST) == ASK
    assert world.run(SHORTEST) == KILL


@given(
    st.lists(
        st.tuples(st.sampled_from(["run", "still", "pass", "fail", "untold", "hold", "release"]), st.floats(0, 60)),
        max_size=60,
    )
)
def test_only_undisturbed_failures_count(steps: list[tuple[str, float]]) -> None:
    """Whatever happens: one command at a time, none while held, and never unhealthy without enough of failures."""
    world = World()
    running, held, failed = False, False, 0
    for step, seconds in steps:
        actions: tuple[Action, ...] = ()
        if step == "run":
            before = world.book.failures
            actions = world.run(seconds)
            failed += max(0, world.book.failures - before)
        elif step == "still":
            actions = world.stand_still(seconds)
            failed += actions == KILL
        elif step in ("hold", "release"):
            held = step == "hold"
            actions = world.book.hold(world.now, on=held)
        elif running:
            running = False
            actions = world.answer({"pass": Event.PASSED, "fail": Event.FAILED, "untold": Event.UNTOLD}[step])
            failed += step == "fail"
        assert not (held and Action.ASK in actions)
        for action in actions:
            assert not (action is Action.ASK and running)
            running = running or action is Action.ASK
        assert Action.TELL not in actions or failed >= 3
        assert world.book.failures <= 3
