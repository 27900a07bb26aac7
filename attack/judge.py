"""What is wrong with what was seen: pure, so that false evidence can be given to it.

Time is judged by orders of magnitude only: an attacker shares the machine with those whom it attacks, and a run of
the tests shares it with others. To be let go without a word is a right end for any hostile peer: it may have had to
give way to another before anybody looked at it. The invariant: every promise that the campaign is about has a kind of
violation here, and each is found when it is planted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from attack.hostile import CLOSED

if TYPE_CHECKING:
    from collections import Counter

    from attack.posts import Exit

MEBIBYTE = 1 << 20
STALL = 3.0  # seconds that a poll may wait at most, whatever is done to the server
TOLD_WITHIN = 5.0  # seconds until a manager has told of an end
LET_IN_WITHIN = 20.0  # seconds until a newcomer's application runs
MEMORY_GROWN = 48 * MEBIBYTE  # of the server, when all who attacked it are gone: what malloc keeps of a crowd is 25
LOG_MOST = MEBIBYTE  # bytes that an attack may write to the server's log
MANAGER_MEMORY = 48 * MEBIBYTE  # of a manager that a hostile server does its worst to
MANAGER_LOG = 64 * MEBIBYTE  # of its package log: its own bound is 10,000 lines of 4 KiB in 10 s
TOLD_ONE_BY_ONE = 10  # lines of one kind after which the server only counts, for a while
LEAST_POLLS = 20  # answers without which nothing was measured


@dataclass(frozen=True)
class Violation:
    """A promise that was broken: its kind, and what was seen."""

    kind: str
    text: str


@dataclass
class Deed:
    """One attack: what became of those who took part, what should have, and what the log has to say of it."""

    name: str
    outcomes: Counter[str]
    expected: str = ".*"
    logged: str = ""


@dataclass
class Round:
    """What was seen while an attack, or several at once, were carried out, and right after."""

    deeds: list[Deed]
    before: str = ""  # what the server had logged just before
    log: str = ""
    log_bytes: int = 0
    seconds: float = 0.0
    polls: list[float] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    let_in: list[float | None] = field(default_factory=list)  # how long each newcomer waited; None is not at all
    same_server: bool = True
    settled: bool = True
    memory: int = 0  # bytes beyond those before the first attack
    lost: list[str] = field(default_factory=list)  # honest managers that lost their link
    touched: list[str] = field(default_factory=list)  # honest applications that are not what they were
    pollers: str = ""  # why the honest pollers gave up

    @property
    def name(self) -> str:
        """What the round is called."""
        return " + ".join(deed.name for deed in self.deeds)


@dataclass(frozen=True)
class Meeting:
    """What became of a real manager that met a hostile server: `wanted` is its exit code, `says` is in its log."""

    name: str
    wanted: int
    code: int | None
    says: str
    log: str
    log_bytes: int
    memory: int
    seconds: float
    limit: float


def judge(rounds: list[Round], meetings: list[Meeting]) -> list[Violation]:
    """Return what is wrong, in the order in which it was seen."""
    found = [violation for seen in rounds for violation in _of_round(seen)]
    return found + [violation for met in meetings for violation in _of_meeting(met)]


def _of_deed(deed: Deed, log: str | None) -> list[Violation]:
    found = []
    if not deed.outcomes:
        found.append(Violation("nothing", f"{deed.name}: nobody attacked"))
    for outcome, count in deed.outcomes.items():
        if outcome != CLOSED and not re.fullmatch(deed.expected, outcome, re.DOTALL):
            text = f"{deed.name}: {count} times {outcome!r}, where {deed.expected!r} was expected"
            found.append(Violation("outcome", text))
    if log is not None and deed.logged and not re.search(deed.logged, log):
        found.append(Violation("log", f"{deed.name}: the server's log says nothing of {deed.logged!r}"))
    return found


def _of_round(seen: Round) -> list[Violation]:
    # What many do, at the same time or just before, is counted in the log, and not told one by one.
    counted = len(seen.deeds) > 1 or seen.before.count(" WARNING: ") >= TOLD_ONE_BY_ONE
    log = None if counted else seen.log
    found = [violation for deed in seen.deeds for violation in _of_deed(deed, log)]

    def add(kind: str, text: str) -> None:
        found.append(Violation(kind, f"{seen.name}: {text}"))

    if "Traceback" in seen.log or "internal error" in seen.log:
        add("defect", f"the server tells of a defect of its own: {_line_with('internal error', seen.log)}")
    if seen.log_bytes > LOG_MOST:
        add("log size", f"{seen.log_bytes} bytes of log, {LOG_MOST} are allowed")
    if not seen.same_server:
        add("server", "the server has ended")
    if not seen.settled:
        add("connections", "the server keeps descriptors of those who are gone")
    if seen.memory > MEMORY_GROWN:
        add("memory", f"the server has grown by {seen.memory / MEBIBYTE:.0f} MiB")
    for name in seen.lost:
        add("link", f"the honest manager {name} lost its link")
    for name in seen.touched:
        add("application", f"the application of the honest manager {name} is not what it was")
    found += _of_honest(seen)
    return found


def _of_honest(seen: Round) -> list[Violation]:
    found: list[Violation] = []
    if seen.pollers:
        found.append(Violation("polls", f"{seen.name}: {seen.pollers}"))
    elif len(seen.polls) < LEAST_POLLS:
        found.append(Violation("polls", f"{seen.name}: only {len(seen.polls)} polls were answered"))
    elif max(seen.polls) > STALL:
        found.append(Violation("stall", f"{seen.name}: a poll waited {max(seen.polls):.1f} s"))
    for end in seen.exits:
        if end.code != end.wanted:
            found.append(Violation("exit", f"{seen.name}: {end.post} exited with {end.code}, not {end.wanted}"))
        elif end.seconds > TOLD_WITHIN:
            found.append(Violation("late", f"{seen.name}: {end.post} told its end after {end.seconds:.1f} s"))
    for waited in seen.let_in:
        if waited is None:
            found.append(Violation("newcomer", f"{seen.name}: an honest manager was not let in"))
        elif waited > LET_IN_WITHIN:
            found.append(Violation("newcomer", f"{seen.name}: an honest manager was let in after {waited:.1f} s"))
    return found


def _of_meeting(met: Meeting) -> list[Violation]:
    found = []
    if met.code != met.wanted:
        found.append(Violation("manager", f"{met.name}: cmappmgr exited with {met.code}, not {met.wanted}"))
    if met.says and not re.search(met.says, met.log):
        found.append(Violation("manager log", f"{met.name}: its log says nothing of {met.says!r}: {met.log[-300:]!r}"))
    if "Traceback" in met.log or "internal error" in met.log:
        found.append(Violation("defect", f"{met.name}: {_line_with('internal error', met.log)}"))
    if met.memory > MANAGER_MEMORY:
        found.append(Violation("manager memory", f"{met.name}: {met.memory / MEBIBYTE:.0f} MiB"))
    if met.log_bytes > MANAGER_LOG:
        found.append(Violation("manager log size", f"{met.name}: {met.log_bytes} bytes"))
    if met.seconds > met.limit:
        found.append(Violation("manager late", f"{met.name}: it took {met.seconds:.1f} s, {met.limit:g} are allowed"))
    return found


def _line_with(word: str, log: str) -> str:
    return next((line for line in log.splitlines() if word in line), log[-300:])
