"""The life of a run in the guest: its table, and the stories that it tells."""

from __future__ import annotations

from itertools import product

import pytest

from cmapp.core import messages as m
from cmapp.core.lifecycle import JUDGEMENTS, TABLE, Action, Event, State
from cmapp.core.outcome import Exited, Outcome, Reason, Signaled, Unknown
from cmapp.core.rules import Probe, ReadyRules, StopRules
from cmapp.core.run import KILL_PATIENCE, Run
from cmapp.errors import StateError

RUN_ID, WALL = "01234567-89ab-cdef-0123-456789abcdef", 1_000_000.0
A, E, S = Action, Event, State
LAUNCH = m.Launch(1, "web", RUN_ID, ("web",), stop=StopRules(timeout=30.0))
PROBED = LAUNCH.replace(ready=ReadyRules(Probe.TCP, "80", timeout=20.0))

PAIRS = list(product(State, Event))
pairs = pytest.mark.parametrize(("state", "event"), PAIRS, ids=[f"{s.value}-{e.value}" for s, e in PAIRS])


def run_in(state: State, launch: m.Launch = LAUNCH, now: float = 0.0) -> Run:
    """Return a run that is in that state."""
    return Run(launch, now, WALL, state)


ENDING = {S.STOPPING, S.KILLING, S.CLEARING}
OVER = {*ENDING, S.ENDED}
LIVELY = {S.READYING, S.RUNNING}
WHEN: dict[Event, set[State]] = {
    E.RECORDED: {S.STARTING, *OVER},
    E.NOT_RECORDED: {S.STARTING, *OVER},
    E.SPAWNED: {S.STARTING, S.STOPPING, S.KILLING},
    E.SPAWN_FAILED: {S.STARTING, S.STOPPING, S.KILLING},
    E.READY: {*LIVELY, *OVER},
    E.STOP_WANTED: set(State),
    E.KILL_WANTED: set(State),
    E.STOP_COMMAND_ENDED: OVER,
    E.LEADER_ENDED: {*LIVELY, *ENDING},
    E.TREE_EMPTY: ENDING,
    E.UNHEALTHY: {*LIVELY, *OVER},
    E.UNREADY: {*LIVELY, *OVER},
    E.HUNG: {*LIVELY, *OVER},
    E.ORPHANED: set(State),
    E.DEADLINE_PASSED: ENDING,
}


@pytest.mark.parametrize("event", Event, ids=lambda event: event.value)
def test_each_event_has_its_time(event: Event) -> None:
    """An event can happen in these states and in no other; a stop can be wanted at any time."""
    assert {state for state in State if TABLE[state, event] is not None} == WHEN[event]


@pairs
@pytest.mark.parametrize("launch", [LAUNCH, PROBED], ids=["", "ready by a probe"])
def test_steps_by_the_table(state: State, event: Event, launch: m.Launch) -> None:
    """A step does what the table says; what cannot happen is an error, and changes nothing."""
    run, entry = run_in(state, launch), TABLE[state, event]
    if entry is None:
        with pytest.raises(StateError, match=f"^{event.value} for a run that is {state.value}$"):
            run.step(event, 1.0)
        assert (run.state, run.deadline, run.reason) == (state, None, Reason.ITSELF)
    elif (state, event) == (S.STARTING, E.SPAWNED) and launch is LAUNCH:
        assert run.step(event, 1.0) == (A.TELL_LAUNCHED, A.TELL_READY)
        assert run.state is S.RUNNING
    else:
        assert run.step(event, 1.0) == entry[1]
        assert run.state is entry[0]


@pytest.mark.parametrize("entry", [entry for entry in TABLE.values() if entry], ids=lambda entry: entry[0].value)
def test_what_the_table_never_does(entry: tuple[State, tuple[Action, ...]]) -> None:
    """A name is freed only when nothing is left, and no step tells two things of one run."""
    state, actions = entry
    assert (Action.FREE_NAME in actions) == (state is State.ENDED and bool(actions))
    assert len({action for action in actions if action.name.startswith("TELL")}) <= 1


def test_only_what_is_recorded_is_executed() -> None:
    """The command is let go by nothing but its record: a server that dies would not know of it."""
    assert {event for (_, event), entry in TABLE.items() if entry and A.EXECUTE in entry[1]} == {E.RECORDED}


# A story is what happens at which second, and what comes of it: state, actions, deadline.
Step = tuple[float, Event, State, list[Action], float | None]
RUNS: Step = (1, E.SPAWNED, S.RUNNING, [A.TELL_LAUNCHED, A.TELL_READY], None)
STORIES: dict[str, tuple[list[Step], Outcome, Reason, bool]] = {
    "exits by itself": (
        [
            (0, E.RECORDED, S.STARTING, [A.EXECUTE], None),
            RUNS,
            (5, E.LEADER_ENDED, S.CLEARING, [A.KILL_TREE, A.TELL_ENDED, A.WATCH_TREE], 15),
            (5, E.TREE_EMPTY, S.ENDED, [A.FREE_NAME], None),
        ],
        *(Exited(3), Reason.ITSELF, False),
    ),
    "exits by itself and leaves what survives SIGKILL": (
        [
            RUNS,
            (5, E.LEADER_ENDED, S.CLEARING, [A.KILL_TREE, A.TELL_ENDED, A.WATCH_TREE], 15),
            (6, E.STOP_WANTED, S.CLEARING, [], 15),
            (7, E.KILL_WANTED, S.CLEARING, [], 15),
            (15, E.DEADLINE_PASSED, S.CLEARING, [A.COMPLAIN, A.KILL_TREE], 25),
            (25, E.DEADLINE_PASSED, S.CLEARING, [A.COMPLAIN, A.KILL_TREE], 35),
            (26, E.TREE_EMPTY, S.ENDED, [A.FREE_NAME], None),
        ],
        *(Exited(3), Reason.ITSELF, False),
    ),
    "stops when asked": (
        [
            RUNS,
            (2, E.STOP_WANTED, S.STOPPING, [A.ASK_TO_STOP], 32),
            (3, E.STOP_WANTED, S.STOPPING, [], 32),
            (4, E.STOP_COMMAND_ENDED, S.STOPPING, [A.SIGNAL_TREE], 32),
            (5, E.LEADER_ENDED, S.STOPPING, [A.SIGNAL_REST, A.WATCH_TREE], 32),
            (9, E.TREE_EMPTY, S.ENDED, [A.TELL_ENDED, A.FREE_NAME], None),
        ],
        *(Exited(3), Reason.ASKED, False),
    ),
    "stops by its stop command, which ends later": (
        [
            RUNS,
            (2, E.STOP_WANTED, S.STOPPING, [A.ASK_TO_STOP], 32),
            (5, E.LEADER_ENDED, S.STOPPING, [A.SIGNAL_REST, A.WATCH_TREE], 32),
            (9, E.TREE_EMPTY, S.ENDED, [A.TELL_ENDED, A.FREE_NAME], None),
            (9, E.STOP_COMMAND_ENDED, S.ENDED, [], None),
        ],
        *(Exited(3), Reason.ASKED, False),
    ),
    "ignores the stop signal": (
        [
            RUNS,
            (2, E.STOP_WANTED, S.STOPPING, [A.ASK_TO_STOP], 32),
            (2, E.STOP_COMMAND_ENDED, S.STOPPING, [A.SIGNAL_TREE], 32),
            (32, E.DEADLINE_PASSED, S.KILLING, [A.KILL_TREE], 42),
            (33, E.LEADER_ENDED, S.KILLING, [A.WATCH_TREE], 42),
            (34, E.TREE_EMPTY, S.ENDED, [A.TELL_ENDED, A.FREE_NAME], None),
        ],
        *(Exited(3), Reason.ASKED, True),
    ),
    "has a stop command that hangs": (
        [
            RUNS,
            (2, E.STOP_WANTED, S.STOPPING, [A.ASK_TO_STOP], 32),
            (32, E.DEADLINE_PASSED, S.KILLING, [A.KILL_TREE], 42),
            (32, E.STOP_COMMAND_ENDED, S.KILLING, [], 42),
            (33, E.LEADER_ENDED, S.KILLING, [A.WATCH_TREE], 42),
            (34, E.TREE_EMPTY, S.ENDED, [A.TELL_ENDED, A.FREE_NAME], None),
        ],
        *(Exited(3), Reason.ASKED, True),
    ),
    "stops, but a child of it does not": (
        [
            RUNS,
            (2, E.STOP_WANTED, S.STOPPING, [A.ASK_TO_STOP], 32),
            (5, E.LEADER_ENDED, S.STOPPING, [A.SIGNAL_REST, A.WATCH_TREE], 32),
            (32, E.DEADLINE_PASSED, S.KILLING, [A.KILL_TREE], 42),
            (42, E.DEADLINE_PASSED, S.KILLING, [A.COMPLAIN, A.KILL_TREE], 52),
            (45, E.TREE_EMPTY, S.ENDED, [A.TELL_ENDED, A.FREE_NAME], None),
        ],
        *(Exited(3), Reason.ASKED, True),
    ),
    "is killed when asked twice": (
        [
            RUNS,
            (2, E.STOP_WANTED, S.STOPPING, [A.ASK_TO_STOP], 32),
            (3, E.KILL_WANTED, S.KILLING, [A.KILL_TREE], 13),
            (4, E.KILL_WANTED, S.KILLING, [A.KILL_TREE], 13),
            (5, E.LEADER_ENDED, S.KILLING, [A.WATCH_TREE], 13),
            (5, E.TREE_EMPTY, S.ENDED, [A.TELL_ENDED, A.FREE_NAME], None),
            (6, E.STOP_WANTED, S.ENDED, [], None),
            (6, E.KILL_WANTED, S.ENDED, [], None),
        ],
        *(Exited(3), Reason.ASKED, True),
    ),
    "is killed at once": (
        [
            RUNS,
            (2, E.KILL_WANTED, S.KILLING, [A.KILL_TREE], 12),
            (3, E.STOP_WANTED, S.KILLING, [], 12),
            (5, E.LEADER_ENDED, S.KILLING, [A.WATCH_TREE], 12),
            (5, E.TREE_EMPTY, S.ENDED, [A.TELL_ENDED, A.FREE_NAME], None),
        ],
        *(Exited(3), Reason.ASKED, True),
    ),
    "is stopped before it runs": (  # what prepares the command would have eaten the signal
        [
            (1, E.STOP_WANTED, S.STOPPING, [], 31),
            (1, E.RECORDED, S.STOPPING, [A.EXECUTE], 31),
            (2, E.SPAWNED, S.STOPPING, [A.TELL_LAUNCHED, A.ASK_TO_STOP], 31),
            (5, E.LEADER_ENDED, S.STOPPING, [A.SIGNAL_REST, A.WATCH_TREE], 31),
            (5, E.TREE_EMPTY, S.ENDED, [A.TELL_ENDED, A.FREE_NAME], None),
        ],
        *(Exited(3), Reason.ASKED, False),
    ),
    "is killed before it runs": (
        [
            (1, E.KILL_WANTED, S.KILLING, [A.KILL_TREE], 11),
            (1, E.RECORDED, S.KILLING, [], 11),
            (2, E.SPAWNED, S.KILLING, [A.TELL_LAUNCHED], 11),
            (5, E.LEADER_ENDED, S.KILLING, [A.WATCH_TREE], 11),
            (5, E.TREE_EMPTY, S.ENDED, [A.TELL_ENDED, A.FREE_NAME], None),
        ],
        *(Exited(3), Reason.ASKED, True),
    ),
    "is found unhealthy, and asked to stop meanwhile": (
        [
            RUNS,
            (5, E.UNHEALTHY, S.STOPPING, [A.ASK_TO_STOP], 35),
            (6, E.STOP_WANTED, S.STOPPING, [], 35),
            (6, E.UNHEALTHY, S.STOPPING, [], 35),
            (6, E.ORPHANED, S.STOPPING, [], 35),
            (7, E.LEADER_ENDED, S.STOPPING, [A.SIGNAL_REST, A.WATCH_TREE], 35),
            (7, E.TREE_EMPTY, S.ENDED, [A.TELL_ENDED, A.FREE_NAME], None),
        ],
        *(Exited(0), Reason.UNHEALTHY, False),
    ),
    "ends by itself just before it is found unhealthy": (
        [
            RUNS,
            (5, E.LEADER_ENDED, S.CLEARING, [A.KILL_TREE, A.TELL_ENDED, A.WATCH_TREE], 15),
            (5, E.UNHEALTHY, S.CLEARING, [], 15),
            (5, E.TREE_EMPTY, S.ENDED, [A.FREE_NAME], None),
            (6, E.HUNG, S.ENDED, [], None),
        ],
        *(Signaled(11), Reason.ITSELF, False),
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_stories(name: str) -> None:
    """What happens to a run leads step by step to what is done, until when, and to its receipt."""
    steps, outcome, reason, forced = STORIES[name]
    run = Run(LAUNCH, 0.0, WALL)
    for now, event, state, actions, deadline in steps:
        done = run.step(event, now, outcome=outcome if event is E.LEADER_ENDED else None)
        assert (event, run.state, list(done), run.deadline) == (event, state, actions, deadline)
    receipt = run.receipt(100.0)
    assert (receipt.name, receipt.run_id) == ("web", RUN_ID)
    assert (receipt.outcome, receipt.reason, receipt.forced) == (outcome, reason, forced)
    assert (receipt.started, receipt.ended, receipt.lasted) == (WALL, WALL + receipt.lasted, run.uptime(1000.0))


@pytest.mark.parametrize("before", [[], [E.STOP_WANTED], [E.KILL_WANTED]], ids=["", "stopped", "killed"])
def test_what_did_not_start_is_not_told_as_ended(before: list[Event]) -> None:
    """A failed launch is told as such, and its name is free once what tried it is gone."""
    run = Run(LAUNCH, 0.0, WALL)
    for event in before:
        run.step(event, 1.0)
    assert run.step(E.SPAWN_FAILED, 2.0) == (A.TELL_NOT_STARTED,)
    assert run.deadline == 2.0 + KILL_PATIENCE
    assert not run.alive
    assert run.step(E.LEADER_ENDED, 3.0, outcome=Exited(127)) == (A.WATCH_TREE,)
    assert run.step(E.TREE_EMPTY, 3.0) == (A.FREE_NAME,)
    assert run.state is S.ENDED
    assert run.deadline is None


def test_what_cannot_be_recorded_is_not_executed() -> None:
    """A full disk kills what waits to become the application, and what it says then is a failed launch."""
    run = Run(LAUNCH, 0.0, WALL)
    assert run.step(E.NOT_RECORDED, 1.0) == (A.KILL_TREE,)
    assert run.state is S.KILLING
    assert run.step(E.SPAWN_FAILED, 1.0) == (A.TELL_NOT_STARTED,)
    assert run.step(E.LEADER_ENDED, 1.0, outcome=Signaled(9)) == (A.WATCH_TREE,)
    assert run.step(E.TREE_EMPTY, 1.0) == (A.FREE_NAME,)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.value)
def test_first_reason_counts(reason: Reason) -> None:
    """A run is stopped for the first reason; what comes later only hurries it."""
    run = run_in(S.RUNNING)
    run.step(E.STOP_WANTED, 1.0, reason=reason, detail="first")
    run.step(E.KILL_WANTED, 2.0, reason=Reason.ASKED, detail="second")
    then = (Reason.ASKED, "second") if reason is Reason.ITSELF else (reason, "first")
    assert (run.reason, run.detail) == then


@pytest.mark.parametrize("event", JUDGEMENTS, ids=lambda event: event.value)
@pytest.mark.parametrize("state", [S.READYING, S.RUNNING], ids=lambda state: state.value)
def test_a_judgement_gives_its_reason_and_its_detail(state: State, event: Event) -> None:
    """What the server finds by itself is in the receipt, with what it saw."""
    run = run_in(state, PROBED)
    run.step(event, 1.0, detail="it looked bad")
    run.step(E.LEADER_ENDED, 2.0, outcome=Exited(0))
    receipt = run.receipt(3.0)
    assert (receipt.reason, receipt.detail) == (JUDGEMENTS[event], "it looked bad")


def test_stop_after_the_end_changes_no_reason() -> None:
    """What ended by itself did so whatever was wanted afterwards."""
    run = run_in(S.RUNNING)
    run.step(E.LEADER_ENDED, 1.0, outcome=Exited(0))
    for event in (E.STOP_WANTED, E.KILL_WANTED, *JUDGEMENTS):
        run.step(event, 2.0, reason=Reason.MANAGER_LOST, detail="too late")
    assert (run.receipt(3.0).reason, run.receipt(3.0).detail) == (Reason.ITSELF, "")


def test_outcome_is_known_once() -> None:
    """A second end of the leader, which no kernel tells, could not replace the first."""
    run = run_in(S.STOPPING)
    run.step(E.LEADER_ENDED, 1.0, outcome=Exited(3))
    run.step(E.LEADER_ENDED, 2.0, outcome=Signaled(9))
    assert (run.outcome, run.ended) == (Exited(3), 1.0)


def test_an_end_that_was_not_seen_is_unknown() -> None:
    """A run whose leader's status is lost has an unknown outcome, and lasts until it is told."""
    run = run_in(S.KILLING)
    run.step(E.TREE_EMPTY, 5.0)
    receipt = run.receipt(5.0)
    assert receipt.outcome == Unknown("the server lost sight of it")
    assert (receipt.lasted, receipt.ended) == (5.0, WALL + 5.0)


@pytest.mark.parametrize(
    ("ended", "now", "uptime"), [(None, 7.5, 7.5), (3.0, 7.5, 3.0), (0.0, 7.5, 0.0), (None, -1.0, 0.0)]
)
def test_uptime_stops_with_the_leader(ended: float | None, now: float, uptime: float) -> None:
    """Uptime counts from the launch to the leader's end, at whatever second that was, and never backwards."""
    run = run_in(S.RUNNING)
    if ended is not None:
        run.step(E.LEADER_ENDED, ended, outcome=Exited(0))
    assert run.uptime(now) == uptime
