"""One run in the server's charge, and the facts by which a later server knows it again.

A run's file is a list of entries; the facts are what the entries say, each overruling what one before it said of
the same. The invariant: what is not in the facts is not known, and is never made up.
"""

from __future__ import annotations

import math

from cmapp.core import checks
from cmapp.core.checks import build
from cmapp.core.ledger import FORMAT
from cmapp.core.lifecycle import State
from cmapp.core.messages import Launch
from cmapp.core.outcome import Exited, Outcome, Reason, Receipt, Signaled, Unknown
from cmapp.core.record import REQUIRED
from cmapp.core.run import Run
from cmapp.core.wire import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from typing import Any

    from cmapp.core.peer import Peer


HIGHEST_PID = 2**22
LATEST = checks.LARGEST / 4  # seconds on any clock: sums of such times are told too


class Charge:
    """A run and who answers for it: `link` is its manager's connection, None while there is none.

    `pid` and `start` prove the identity of its main process. `launch_id` is the request that waits for the answer that
    it is launched, `attached` if it found the run there; `starting` until it is, or is not. `sure` is false if the
    server was restarted just then, so that nobody knows whether the command was executed.
    """

    __slots__ = (
        "alarm",
        "attached",
        "detached",
        "expected",
        "facts",
        "launch",
        "launch_id",
        "link",
        "manager",
        "orphaned",
        "owner",
        "pid",
        "run",
        "start",
        "starting",
        "sure",
    )

    def __init__(self, launch: Launch, manager: str, run: Run) -> None:
        self.launch = launch
        self.manager = manager
        self.run = run
        self.facts: dict[str, Any] = {}  # what its file says, all together
        self.owner: Peer | None = None  # who answers for it, or did last
        self.link: Hashable | None = None
        self.pid = 0
        self.start = 0
        self.launch_id: int | None = None
        self.attached = False
        self.detached = False
        self.orphaned: float | None = None
        self.expected = -math.inf  # until when its manager may yet come back to a server that was away itself
        self.alarm: float | None = None  # when the clock will be looked at for it, at the latest
        self.starting = True
        self.sure = True

    @property
    def run_id(self) -> str:
        """The run's name in the protocol and on disk."""
        return self.launch.run_id

    def __str__(self) -> str:
        """Name it for the log."""
        return f"{self.launch.name} (run {self.launch.run_id})"

    def entries(self, boot_id: str, where: str) -> tuple[dict[str, Any], ...]:
        """Return what the file of the run, which was just prepared, begins with; `where` its processes belong."""
        header = {
            "format": FORMAT,
            "launch": plain(self.launch),
            "manager": self.manager,
            "boot_id": boot_id,
            "started": self.run.started,
            "wall": self.run.started_wall,
            "where": where,
        }
        entries = header, {"pid": self.pid, "start": self.start}
        self.facts = entries[0] | entries[1]
        return entries


class Facts:
    """What a run's file says; raises ValueError or TypeError when it is not one that we can read.

    All of it is checked here, so what is made of it later is sound. `pid` is the number of the main process, 0 if it
    was never prepared; `started` when it was launched, on the monotonic clock of its boot; `where` the cgroup of its
    processes, or "" if it has none; `invocation` systemd's name for the start of a unit. `acknowledged` is when its
    receipt was, on the wall's clock, `orphaned` since when nobody watches it. `settled` tells that nothing of the run
    was left but its receipt.
    """

    __slots__ = (
        "_detail",
        "_ended",
        "_facts",
        "_outcome",
        "_start",
        "_stopping",
        "_wall",
        "acknowledged",
        "boot_id",
        "invocation",
        "launch",
        "manager",
        "orphaned",
        "pid",
        "receipt",
        "settled",
        "started",
        "where",
    )

    def __init__(self, entries: Iterable[dict[str, Any]], *, settled: bool) -> None:
        facts: dict[str, Any] = {}
        for entry in entries:
            facts.update(entry)
        if facts.get("format") != FORMAT:
            raise ValueError(f"has the format {facts.get('format')}, and this version reads {FORMAT}")
        self._facts = facts
        self.settled = settled
        self.launch: Launch = build(Launch, facts.get("launch"))
        self.manager = _checked(facts, "manager", checks.text, "")
        self.boot_id = _checked(facts, "boot_id", checks.text, "")
        self.where = _checked(facts, "where", checks.text, "")
        self.invocation = _checked(facts, "invocation", checks.text, "")
        self.pid: int = _checked(facts, "pid", checks.within(0, HIGHEST_PID), 0)
        self._start: int = _checked(facts, "start", checks.count, 0)
        self.started: float = _checked(facts, "started", _time)
        self._wall: float = _checked(facts, "wall", _time)
        self._ended: float | None = _checked(facts, "ended", _time, None)
        self.orphaned: float | None = _checked(facts, "orphaned", checks.optional(_time), None)
        self.acknowledged: float | None = _checked(facts, "acknowledged", checks.optional(_time), None)
        self._stopping: Reason | None = _checked(facts, "stopping", checks.one_of(Reason), None)
        self._detail = _checked(facts, "detail", checks.text, "")
        self._outcome: Outcome | None = _checked(facts, "outcome", checks.tagged(Exited, Signaled, Unknown), None)
        self.receipt: Receipt | None = _checked(facts, "receipt", checks.optional(checks.record(Receipt)), None)
        if self.receipt is not None and self.receipt.run_id != self.launch.run_id:
            raise ValueError("receipt: is that of another run")

    def charge(self, now: float) -> Charge:
        """Return the run as it was left, for a server of the same boot to go on with."""
        facts, run = self._facts, self._run(self._state())
        if run.state is State.READYING and not run.says_ready:
            run.state = State.RUNNING
        run.held, run.ready = bool(facts.get("held")), bool(facts.get("ready"))
        charge = Charge(self.launch, self.manager, run)
        charge.pid, charge.start = self.pid, self._start
        charge.facts = dict(facts)
        charge.starting = False
        charge.sure = bool(facts.get("launched"))
        charge.detached, charge.orphaned = bool(facts.get("detached")), self.orphaned
        run.resume(now, left=charge.detached, orphaned=charge.orphaned)
        return charge

    def lost(self, text: str) -> Receipt:
        """Return the receipt of the run if how it ended cannot be learned any more because of `text`."""
        run = self._run(State.ENDED)
        run.outcome = run.outcome or Unknown(text)
        run.ended = run.started if run.ended is None else run.ended
        return run.receipt(run.ended)

    def _run(self, state: State) -> Run:
        run = Run(self.launch, self.started, self._wall, state)
        run.outcome, run.ended = self._outcome, self._ended
        if self._stopping is not None:
            run.reason, run.detail = self._stopping, self._detail
        run.forced = bool(self._facts.get("forced"))
        return run

    def _state(self) -> State:
        if self.receipt is not None:
            return State.CLEARING
        if self._stopping is not None:
            return State.KILLING if self._facts.get("forced") else State.STOPPING
        came_up = self._facts.get("ready") or (self._facts.get("moved") and self.launch.ready is None)
        return State.RUNNING if came_up else State.READYING


def _checked(facts: dict[str, Any], key: str, check: Callable[[Any], Any], default: Any = REQUIRED) -> Any:
    """Return what the facts say under `key`, or the default if they say nothing; raises ValueError with the key."""
    if key not in facts and default is not REQUIRED:
        return default
    try:
        return check(facts.get(key))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _time(value: Any) -> float:
    if checks.seconds(value) > LATEST:
        raise ValueError("must be a time that a clock can show")
    return float(value)
