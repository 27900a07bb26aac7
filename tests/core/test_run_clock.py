"""When the clock ends a state of a run, and when it must not: every window, late looks, orphans, watchdogs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core import messages as m
from cmapp.core.duration import LATE
from cmapp.core.lifecycle import TIMERS, Event, State
from cmapp.core.outcome import Exited
from cmapp.core.rules import HealthRules, Kind, OrphanAction, OrphanRules, Probe, ReadyRules, StopRules
from cmapp.core.run import KILL_PATIENCE, READY_LIMIT, RETURN_LEAST, Run

RUN_ID = "01234567-89ab-cdef-0123-456789abcdef"
E, S = Event, State
STOP, ORPHAN, READY, WATCHDOG = 30.0, 60.0, 20.0, 5.0
PLAIN = m.Launch(1, "web", RUN_ID, ("web",), stop=StopRules(timeout=STOP))
FULL = PLAIN.replace(ready=ReadyRules(Probe.TCP, "80", timeout=READY), watchdog=WATCHDOG)
KEPT = PLAIN.replace(orphan=OrphanRules(action=OrphanAction.KEEP))


def run_in(state: State, launch: m.Launch = FULL, now: float = 0.0) -> Run:
    """Return a run that has just entered that state on its way from the launch."""
    run = Run(launch, now, 1_000_000.0)
    ways = {
        S.STARTING: [],
        S.READYING: [E.SPAWNED],
        S.RUNNING: [E.SPAWNED, E.READY],
        S.STOPPING: [E.STOP_WANTED],
        S.KILLING: [E.KILL_WANTED],
        S.CLEARING: [E.SPAWNED, E.LEADER_ENDED],
        S.ENDED: [E.SPAWN_FAILED, E.TREE_EMPTY],
    }
    for event in ways[state]:
        run.step(event, now, outcome=Exited(0))
    assert run.state is state
    return run


def windows(run: Run, now: float) -> dict[Event, float]:
    """Return the windows that are open: how long each has still to go."""
    return {event: at - now for event, at in run._timers.items()}


OPEN: dict[State, dict[Event, float]] = {
    S.STARTING: {},
    S.READYING: {E.UNREADY: READY, E.HUNG: WATCHDOG},
    S.RUNNING: {E.HUNG: WATCHDOG},
    S.STOPPING: {E.DEADLINE_PASSED: STOP},
    S.KILLING: {E.DEADLINE_PASSED: KILL_PATIENCE},
    S.CLEARING: {E.DEADLINE_PASSED: KILL_PATIENCE},
    S.ENDED: {},
}
states = pytest.mark.parametrize("state", State, ids=lambda state: state.value)


def test_each_state_has_its_timers() -> None:
    """Every state says which timers may run in it; the first three may also lose their manager."""
    mayhap = {S.STARTING, S.READYING, S.RUNNING}
    assert {state: set(timers) for state, timers in TIMERS.items()} == {
        state: {*OPEN[state], *({E.ORPHANED} if state in mayhap else ())} for state in State
    }


@states
def test_windows_open_with_their_state(state: State) -> None:
    """What may end a state begins to be counted when it is entered."""
    run = run_in(state, now=100.0)
    assert windows(run, 100.0) == OPEN[state]
    assert run.deadline == (100.0 + min(OPEN[state].values()) if OPEN[state] else None)


@pytest.mark.parametrize("launch", [PLAIN, PLAIN.replace(health=HealthRules(("true",)))], ids=["plain", "health"])
def test_what_asks_for_nothing_is_awaited_by_nobody(launch: m.Launch) -> None:
    """A run without readiness or watchdog is judged by no clock."""
    assert run_in(S.RUNNING, launch).deadline is None


@pytest.mark.parametrize("kind", [Kind.FORKING, Kind.NOTIFY], ids=lambda kind: kind.value)
def test_what_has_to_say_that_it_is_there_has_a_while_for_it(kind: Kind) -> None:
    """A daemon that never forks away, or never says READY=1, is not waited for without end."""
    assert windows(run_in(S.READYING, PLAIN.replace(kind=kind)), 0.0) == {E.UNREADY: READY_LIMIT}


@pytest.mark.parametrize(
    ("state", "event"), [(state, event) for state in State for event in OPEN[state]],
    ids=[f"{state.value}-{event.value}" for state in State for event in OPEN[state]],
)  # fmt: skip
def test_window_ends_by_its_event(state: State, event: Event) -> None:
    """Nothing is due before its time; at its time it is, and until it is stepped."""
    run = run_in(state)
    at = OPEN[state][event]
    run._timers = {event: at}
    assert run.clock(at - 0.001) is None
    for now in (at, at + 1.0, at + LATE):
        assert run.clock(now) is event
    run.step(event, at)
    assert run.clock(at) is None


def test_whoever_is_due_first_comes_first() -> None:
    """Two windows that have ended are stepped in the order in which they did."""
    run = run_in(S.RUNNING)
    run._timers = {E.ORPHANED: 4.0, E.HUNG: 5.0}
    assert run.clock(5.5) is E.ORPHANED
    run._timers = {E.ORPHANED: 5.0, E.HUNG: 4.0}
    assert run.clock(5.5) is E.HUNG


# ---- the machine stood still -------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [event for event in Event if any(event in TIMERS[s] for s in State)])
@pytest.mark.parametrize("late", [LATE + 0.001, 60.0, 1e6], ids=str)
def test_late_look_begins_anew(event: Event, late: float) -> None:
    """A guest that was paused past a window judges nobody: kubevirt#17235, nomad#3595 are of that kind."""
    state = next(state for state in State if event in TIMERS[state] and state is not S.STARTING)
    run = run_in(state)
    run.orphan(0.0)
    whole = windows(run, 0.0)[event]
    now = whole + late
    run._timers = {event: whole}
    assert run.clock(now) is None
    assert windows(run, now) == {event: pytest.approx(whole)}
    assert run.clock(now + whole) is event


def test_late_look_spares_what_is_not_due_yet() -> None:
    """A pause that ends before a window does changes nothing of it: the rest of it is time enough to be heard."""
    run = run_in(S.READYING)
    now = WATCHDOG + LATE + 1.0
    assert run.clock(now) is None
    assert windows(run, now) == {E.HUNG: pytest.approx(WATCHDOG), E.UNREADY: pytest.approx(READY - now)}


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6), st.sampled_from([s for s in State if OPEN[s]]))
def test_clock_leaves_nothing_behind(first: float, second: float, state: State) -> None:
    """Whenever the clock is looked at, either something is to be stepped, or all windows end later."""
    run = run_in(state)
    for now in sorted((first, second)):
        event = run.clock(now)
        assert event is None or now - LATE <= run._timers[event] <= now
        assert event is not None or all(at > now for at in run._timers.values())


# ---- watchdog ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [S.READYING, S.RUNNING], ids=lambda state: state.value)
def test_a_beat_begins_the_watchdog_anew(state: State) -> None:
    """Each WATCHDOG=1 gives the application its whole time again, and is no word on its readiness."""
    run = run_in(state)
    run.beat(4.0)
    assert windows(run, 4.0)[E.HUNG] == WATCHDOG
    assert windows(run, 4.0).get(E.UNREADY) == (READY - 4.0 if state is S.READYING else None)


@states
def test_a_beat_opens_no_window(state: State) -> None:
    """What is not watched, or no longer, is not watched because it beats."""
    run = run_in(state, FULL.replace(watchdog=None))
    before = windows(run, 0.0)
    run.beat(1.0)
    assert windows(run, 0.0) == before


def test_watchdog_goes_on_when_it_is_ready() -> None:
    """Becoming ready is no beat: the watchdog's window goes on from where it was."""
    run = run_in(S.READYING)
    run.step(E.READY, 4.0)
    assert windows(run, 4.0) == {E.HUNG: WATCHDOG - 4.0}


# ---- orphans -----------------------------------------------------------------------------------------------


@states
def test_whoever_lives_can_be_an_orphan(state: State) -> None:
    """A lost manager opens a window while the run lives, and none when it is being ended anyway."""
    run = run_in(state, now=10.0)
    run.orphan(12.0)
    lives = state in (S.STARTING, S.READYING, S.RUNNING)
    assert windows(run, 12.0).get(E.ORPHANED) == (ORPHAN if lives else None)


def test_orphan_that_is_found_is_none() -> None:
    """A manager that comes in time closes the window; the next loss opens a whole one."""
    run = run_in(S.RUNNING, PLAIN)
    run.orphan(1.0)
    run.found()
    assert run.deadline is None
    run.orphan(50.0)
    assert windows(run, 50.0) == {E.ORPHANED: ORPHAN}


def test_orphan_window_goes_on_through_the_states() -> None:
    """Becoming launched and ready is no manager."""
    run = run_in(S.STARTING)
    run.orphan(1.0)
    for event in (E.SPAWNED, E.READY):
        run.step(event, 2.0)
        assert run._timers[E.ORPHANED] == 1.0 + ORPHAN


def test_orphan_that_is_kept_has_no_window() -> None:
    """With `keep`, a run waits for its manager without end."""
    run = run_in(S.RUNNING, KEPT)
    run.orphan(1.0)
    run.resume(2.0, left=False, orphaned=1.0)
    assert run.deadline is None


@pytest.mark.parametrize(
    ("since", "timeout", "left"),
    [
        (None, 60.0, 60.0),  # its manager was there until the server was gone
        (100.0, 60.0, 60.0),
        (70.0, 60.0, 30.0),  # the time without a server counts
        (50.0, 60.0, 10.0),
        (40.0, 60.0, RETURN_LEAST),  # it had no chance to return while there was no server
        (0.0, 60.0, RETURN_LEAST),
        (0.0, 4.0, 4.0),
        (0.0, 0.0, 0.0),
    ],
)
def test_orphan_of_a_server_that_was_away(since: float | None, timeout: float, left: float) -> None:
    """A server that comes back goes on counting, but leaves a manager some time to connect."""
    run = Run(PLAIN.replace(orphan=OrphanRules(timeout)), 0.0, 0.0, S.RUNNING)
    run.resume(100.0, left=False, orphaned=since)
    assert windows(run, 100.0) == {E.ORPHANED: left}


def test_what_was_left_on_purpose_is_no_orphan() -> None:
    """A run that was detached waits without end, also for the next server."""
    run = Run(PLAIN, 0.0, 0.0, S.RUNNING)
    run.resume(100.0, left=True, orphaned=None)
    assert run.deadline is None


@states
def test_server_that_comes_back_begins_every_window_anew(state: State) -> None:
    """What was being counted when the server was gone is counted from the beginning: nobody could be heard."""
    run = Run(FULL, 0.0, 0.0, state)
    run.resume(100.0, left=True, orphaned=None)
    assert windows(run, 100.0) == OPEN[state]
