"""The life of a run by processes that do as they like, in any order that a guest can bring about.

They ignore signals, fork, hang in the kernel, fail to start, and end at the moment at which they are stopped.
What the lifecycle promises has to hold all along: the end is told once, a name is free only when nothing is left.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cmapp.core.lifecycle import Action, Event, Run, State
from cmapp.core.messages import StopRules
from cmapp.core.outcome import Exited, Outcome, Reason, Signaled, Unknown

RUN_ID = "01234567-89ab-cdef-0123-456789abcdef"
WALL = 1_000_000.0
A, E, S = Action, Event, State


class Guest(RuleBasedStateMachine):
    """A run's processes on an invented clock, and a shell that carries out actions and reports what it sees."""

    def __init__(self) -> None:
        """Launch: there is one process, and whether it becomes the command is not known yet."""
        super().__init__()
        self.now = 0.0
        self.run = Run(StopRules(timeout=30.0), self.now, WALL)
        self.leader: Outcome | None = None  # how it ended, once it did
        self.children: list[str] = []  # what each does about signals: "dies", "ignores" TERM, is "stuck" in the kernel
        self.temper = "dies"
        self.starts = True
        self.spawned: bool | None = None  # what the shell has reported
        self.leader_seen = self.watched = self.emptied = False
        self.wanted = self.killed_after_wanted = False
        self.done: list[Action] = []

    @initialize(temper=st.sampled_from(["dies", "ignores", "stuck"]), starts=st.sampled_from([True, True, False]))
    def choose(self, temper: str, *, starts: bool) -> None:
        """Choose what kind of application it is."""
        self.temper, self.starts = temper, starts

    @precondition(lambda self: self.spawned is None)
    @rule()
    def see_spawn(self) -> None:
        """The shell learns whether the command runs; a preparation that was killed looks like a start."""
        self.spawned = self.starts or self.leader is not None
        if not self.spawned:
            self.leader = Exited(127)
        self.step(E.SPAWNED if self.spawned else E.SPAWN_FAILED)

    @precondition(lambda self: self.spawned and self.leader is None)
    @rule(temper=st.sampled_from(["dies", "ignores", "stuck"]))
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

    @rule(kill=st.booleans(), reason=st.sampled_from([Reason.ASKED, Reason.MANAGER_LOST, Reason.SERVER_STOPPED]))
    def want_stop(self, reason: Reason, *, kill: bool) -> None:
        """Somebody wants it stopped, at any moment, also when it has just ended."""
        self.wanted = True
        self.step(E.KILL_WANTED if kill else E.STOP_WANTED, reason=reason)

    @precondition(lambda self: self.run.deadline is not None)
    @rule()
    def wait(self) -> None:
        """Time passes until something is due."""
        assert self.run.deadline is not None
        self.now = self.run.deadline
        self.step(E.DEADLINE_PASSED)

    def step(self, event: Event, **details: Any) -> None:
        """Step the run, check what it tells, and do what it wants done."""
        self.now += 0.125
        known = self.run.outcome
        for action in self.run.step(event, self.now, **details):
            self.done.append(action)
            if action is A.SIGNAL_TREE:
                assert self.wanted
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
        assert known is None or self.run.outcome == known

    def signal(self, tempers: tuple[str, ...], outcome: Outcome) -> None:
        """Have all processes die that do of this signal; before the command runs, any does."""
        self.children = [temper for temper in self.children if temper not in tempers]
        if self.leader is None and (self.temper in tempers or not self.spawned):
            self.leader = outcome

    def check_receipt(self) -> None:
        """The end is told as it was: after the whole tree's end if it was stopped, forced if it took SIGKILL."""
        receipt = self.run.receipt("web", RUN_ID, self.now)
        assert self.leader_seen
        assert receipt.outcome == self.run.outcome
        assert receipt.outcome == self.leader or isinstance(receipt.outcome, Unknown)
        if receipt.reason is Reason.ITSELF:
            assert not receipt.forced
        else:
            assert self.wanted
            assert self.emptied
            assert not self.children
            assert receipt.forced == self.killed_after_wanted

    @invariant()
    def nothing_is_told_twice(self) -> None:
        """Each thing is told at most once, an end only of what was launched."""
        for action in (A.TELL_LAUNCHED, A.TELL_NOT_STARTED, A.TELL_ENDED, A.FREE_NAME):
            assert self.done.count(action) <= 1
        assert A.TELL_ENDED not in self.done or A.TELL_LAUNCHED in self.done
        assert not {A.TELL_NOT_STARTED, A.TELL_LAUNCHED} <= set(self.done)

    @invariant()
    def a_deadline_stands_while_something_must_happen(self) -> None:
        """Once a run is to end it has a deadline, until it has ended; while it just runs it has none."""
        assert (self.run.deadline is not None) == (self.run.state not in (S.STARTING, S.RUNNING, S.ENDED))
        assert self.run.deadline is None or self.run.deadline > self.now

    def teardown(self) -> None:
        """Whatever happened, a stop ends the run within its rules, and frees the name."""
        if self.spawned is None:
            self.see_spawn()
        self.want_stop(Reason.ASKED, kill=False)
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


TestGuest: Any = Guest.TestCase
TestGuest.settings = settings(max_examples=300, stateful_step_count=20)
