"""The life of a run by processes that do as they like, in any order that a guest can bring about.

They ignore signals, fork, hang in the kernel, fail to start, end at the moment at which they are stopped, and have
stop commands that hang; the clock jumps, checks fail, managers vanish, and somebody holds them. What the lifecycle
promises has to hold all along: the end is told once, a name is free only when nothing is left, who is held is not
judged.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cmapp.core import messages as m
from cmapp.core.duration import LATE
from cmapp.core.lifecycle import JUDGEMENTS, Action, Event, State
from cmapp.core.outcome import Exited, Outcome, Reason, Signaled, Unknown
from cmapp.core.rules import OrphanAction, OrphanRules, Probe, ReadyRules, StopRules
from cmapp.core.run import Run

RUN_ID = "01234567-89ab-cdef-0123-456789abcdef"
WALL = 1_000_000.0
A, E, S = Action, Event, State
LAUNCH = m.Launch(1, "web", RUN_ID, ("web",), stop=StopRules(timeout=30.0), watchdog=45.0)
READY = ReadyRules(Probe.NOTIFY, timeout=20.0)
TEMPERS = st.sampled_from(["dies", "ignores", "stuck"])
STEP = 0.125  # seconds from one event to the next
JUDGED = (S.READYING, S.RUNNING)


class Guest(RuleBasedStateMachine):
    """A run's processes on an invented clock, and a shell that carries out actions and reports what it sees."""

    def __init__(self) -> None:
        """Launch: there is one process, and whether it becomes the command is not known yet."""
        super().__init__()
        self.now = 0.0
        self.run = Run(LAUNCH, self.now, WALL)
        self.leader: Outcome | None = None  # how it ended, once it did
        self.children: list[str] = []  # what each does about signals: "dies", "ignores" TERM, is "stuck" in the kernel
        self.temper = "dies"
        self.starts = True
        self.recorded: bool | None = None  # what the shell has reported
        self.let_go = False
        self.spawned: bool | None = None
        self.leader_seen = self.watched = self.emptied = False
        self.stop_command = ""  # "", "runs" or "ended"
        self.wanted = self.killed_after_wanted = False
        self.done: list[Action] = []

    @initialize(temper=TEMPERS, starts=st.sampled_from([True, True, False]), probed=st.booleans(), keep=st.booleans())
    def choose(self, temper: str, *, starts: bool, probed: bool, keep: bool) -> None:
        """Choose what kind of application it is."""
        self.temper, self.starts = temper, starts
        action = OrphanAction.KEEP if keep else OrphanAction.STOP
        launch = LAUNCH.replace(ready=READY if probed else None, orphan=OrphanRules(60.0, action))
        self.run = Run(launch, self.now, WALL)

    @precondition(lambda self: self.recorded is None)
    @rule(written=st.sampled_from([True, True, True, False]))
    def see_record(self, *, written: bool) -> None:
        """The shell learns whether the run's file is written, at any time before the command runs."""
        self.recorded = written
        self.step(E.RECORDED if written else E.NOT_RECORDED)

    @precondition(lambda self: self.spawned is None and (self.let_go or self.leader is not None))
    @rule()
    def see_spawn(self) -> None:
        """The shell learns whether the command runs; a preparation that was killed looks like a start."""
        self.spawned = (self.starts and self.let_go) or (self.leader is not None and self.recorded is not False)
        if not self.spawned:
            self.leader = self.leader or Exited(1)
        self.step(E.SPAWNED if self.spawned else E.SPAWN_FAILED)

    @precondition(lambda self: self.spawned and self.leader is None)
    @rule(temper=TEMPERS)
    def fork(self, temper: str) -> None:
        """The application starts another process."""
        self.children.append(temper)

    @precondition(lambda self: self.spawned and self.leader is None)
    @rule(outcome=st.sampled_from([Exited(0), Exited(7), Signaled(11)]))
    def leader_ends(self, outcome: Outcome) -> None:
        """The application ends by itself; the shell has not seen it yet."""
        self.leader = outcome

    @precondition(lambda self: self.children)
    @rule()
    def child_ends(self) -> None:
        """One of the others ends, whatever it hung in."""
        self.children.pop()

    @precondition(lambda self: self.leader is not None and not self.leader_seen)
    @rule(lost=st.sampled_from([False, False, True]))
    def see_leader(self, *, lost: bool) -> None:
        """The shell sees the leader's end, after the word on its start; its status may be lost."""
        if self.spawned is None:
            self.see_spawn()
        self.leader_seen = True
        self.step(E.LEADER_ENDED, outcome=Unknown("somebody else took it") if lost else self.leader)

    @precondition(lambda self: self.watched and not self.emptied and not self.children)
    @rule()
    def see_tree(self) -> None:
        """The shell sees that nothing is left."""
        self.emptied = True
        self.step(E.TREE_EMPTY)

    @precondition(lambda self: self.stop_command == "runs")
    @rule()
    def stop_command_ends(self) -> None:
        """The stop command ends, or is killed, also when the application is long gone."""
        self.stop_command = "ended"
        self.step(E.STOP_COMMAND_ENDED)

    @rule(kill=st.booleans(), reason=st.sampled_from([Reason.ASKED, Reason.REPLACED, Reason.SERVER_STOPPED]))
    def want_stop(self, reason: Reason, *, kill: bool) -> None:
        """Somebody wants it stopped, at any moment, also when it has just ended."""
        self.wanted = True
        self.step(E.KILL_WANTED if kill else E.STOP_WANTED, reason=reason)

    @precondition(lambda self: self.spawned)
    @rule(beats=st.booleans())
    def speak(self, *, beats: bool) -> None:
        """The application says that it is ready, or that it is well, whenever it likes."""
        if beats:
            self.run.beat(self.now)
        elif self.run.state is not S.STARTING:
            self.step(E.READY)

    @precondition(lambda self: self.spawned)
    @rule()
    def fail_check(self) -> None:
        """Its checks have failed too often; the shell may still tell so of a run that has just been held."""
        self.step(E.UNHEALTHY, detail="3 of 3 checks failed")

    @rule(lost=st.booleans())
    def lose_manager(self, *, lost: bool) -> None:
        """Its manager vanishes, or another comes."""
        if lost:
            self.run.orphan(self.now)
        else:
            self.run.found()

    @rule(on=st.booleans(), orphan=st.booleans())
    def hold(self, *, on: bool, orphan: bool) -> None:
        """Somebody holds it, or resumes it."""
        self.run.hold(self.now, on=on, orphan=orphan)

    @precondition(lambda self: self.run.deadline is not None)
    @rule()
    def wait(self) -> None:
        """Time passes until something is due."""
        assert self.run.deadline is not None
        self.now = self.run.deadline
        event = self.run.clock(self.now)
        assert event is not None
        self.step(event)

    @precondition(lambda self: self.run.deadline is not None)
    @rule(much=st.sampled_from([LATE + 0.001, 3600.0]))
    def oversleep(self, much: float) -> None:
        """The machine stands still past everything that was due: nothing comes of it but new windows."""
        assert self.run.deadline is not None
        self.now = max(self.run._timers.values()) + much
        assert self.run.clock(self.now) is None
        assert self.run.deadline > self.now

    def step(self, event: Event, **details: Any) -> None:
        """Step the run, check what it tells, and do what it wants done."""
        self.now += STEP
        known, before, judged = self.run.outcome, self.run.state, event in JUDGEMENTS
        held = self.run.held
        for action in self.run.step(event, self.now, **details):
            self.done.append(action)
            self.carry_out(action)
        if judged and before is not self.run.state:
            assert not held
            self.wanted = True
        assert known is None or self.run.outcome == known

    def carry_out(self, action: Action) -> None:
        """Do what is wanted, as the shell and the kernel would."""
        if action is A.EXECUTE:
            assert self.recorded
            self.let_go = True
        elif action is A.ASK_TO_STOP:
            assert self.spawned
            assert not self.stop_command
            self.stop_command = "runs"
        elif action is A.SIGNAL_TREE:
            assert self.stop_command == "ended"
            self.signal(("dies",), Signaled(15))
        elif action is A.SIGNAL_REST:
            assert self.leader_seen
            self.signal(("dies",), Signaled(15))
        elif action is A.KILL_TREE:
            self.killed_after_wanted |= self.run.reason is not Reason.ITSELF
            self.signal(("dies", "ignores"), Signaled(9))
        elif action is A.WATCH_TREE:
            assert self.leader_seen
            self.watched = True
        elif action is A.TELL_ENDED:
            self.check_receipt()
        elif action is A.FREE_NAME:
            assert self.emptied

    def signal(self, tempers: tuple[str, ...], outcome: Outcome) -> None:
        """Have all processes die that do of this signal; before the command runs, any does."""
        self.children = [temper for temper in self.children if temper not in tempers]
        if self.leader is None and (self.temper in tempers or not self.spawned):
            self.leader = outcome

    def check_receipt(self) -> None:
        """The end is told as it was: after the whole tree's end if it was stopped, forced if it took SIGKILL."""
        receipt = self.run.receipt(self.now)
        assert self.leader_seen
        assert self.let_go or self.killed_after_wanted
        assert receipt.outcome == self.run.outcome
        assert receipt.outcome == self.leader or isinstance(receipt.outcome, Unknown)
        if receipt.reason is Reason.ITSELF:
            assert not receipt.forced
        else:
            assert self.emptied
            assert not self.children
            assert receipt.forced == self.killed_after_wanted

    @invariant()
    def nothing_is_told_twice(self) -> None:
        """Each thing is told at most once, an end only of what was launched, readiness only of what runs."""
        for action in (A.EXECUTE, A.TELL_LAUNCHED, A.TELL_NOT_STARTED, A.TELL_READY, A.TELL_ENDED, A.FREE_NAME):
            assert self.done.count(action) <= 1
        assert not {A.TELL_READY, A.TELL_ENDED} & set(self.done) or A.TELL_LAUNCHED in self.done
        assert not {A.TELL_NOT_STARTED, A.TELL_LAUNCHED} <= set(self.done)

    @invariant()
    def a_deadline_stands_while_something_must_happen(self) -> None:
        """Once a run is to end it has a deadline, until it has ended."""
        ending = (S.STOPPING, S.KILLING, S.CLEARING)
        assert self.run.deadline is not None or self.run.state not in ending
        assert self.run.deadline is None or self.run.state is not S.ENDED
        assert self.run.deadline is None or self.run.deadline > self.now - STEP

    @invariant()
    def who_is_held_is_waited_for_by_nobody(self) -> None:
        """A run that is held has no window open in which it would be judged; else its watchdog is awaited."""
        if self.run.held:
            assert not self.run._timers.keys() & JUDGEMENTS
        elif self.run.state in JUDGED:
            assert E.HUNG in self.run._timers
            assert (E.UNREADY in self.run._timers) == (self.run.state is S.READYING)

    @invariant()
    def a_stop_has_its_cause(self) -> None:
        """No run is stopped that nobody wanted stopped, and that nothing was found wrong with."""
        assert self.run.state not in (S.STOPPING, S.KILLING) or self.wanted or self.recorded is False
        assert (self.run.reason is Reason.ITSELF) or self.wanted or self.recorded is False

    def teardown(self) -> None:
        """Whatever happened, a stop ends the run within its rules, and frees the name."""
        self.want_stop(Reason.ASKED, kill=False)
        if self.recorded is None:
            self.see_record(written=True)
        for _ in range(3):
            if self.leader is None and not self.leader_seen:
                self.wait()
                self.leader = self.leader or (Signaled(9) if self.temper == "stuck" else None)
        assert self.leader is not None
        if not self.leader_seen:
            self.see_leader(lost=False)
        self.children.clear()
        if not self.emptied:
            self.see_tree()
        assert (self.run.state, self.done.count(A.FREE_NAME)) == (S.ENDED, 1)
        assert self.done.count(A.TELL_ENDED) == self.done.count(A.TELL_LAUNCHED) == int(bool(self.spawned))
        assert self.done.count(A.TELL_NOT_STARTED) == int(not self.spawned)
        if self.stop_command == "runs":
            self.stop_command_ends()


TestGuest: Any = Guest.TestCase
TestGuest.settings = settings(max_examples=300, stateful_step_count=20)
