"""One run in the server's charge, and the facts by which a later server knows it again.

A run's file is a list of entries; the facts are what the entries say, each overruling what one before it said of
the same. The invariant: what is not in the facts is not known, and is never made up.
"""

from __future__ import annotations

import math

from cmapp.core.checks import build
from cmapp.core.ledger import FORMAT
from cmapp.core.lifecycle import State
from cmapp.core.messages import Launch
from cmapp.core.outcome import Outcome, Reason, Receipt, Unknown
from cmapp.core.run import Run
from cmapp.core.wire import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from typing import Any

    from cmapp.core.peer import Peer


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
    """What a run's file says; raises ValueError, KeyError or TypeError when it is not one that we can read.

    `acknowledged` is when its receipt was, on the wall's clock, `orphaned` since when nobody watches it. `settled`
    tells that nothing of the run was left but its receipt.
    """

    __slots__ = ("_facts", "acknowledged", "boot_id", "launch", "manager", "orphaned", "receipt", "settled")

    def __init__(self, entries: Iterable[dict[str, Any]], *, settled: bool) -> None:
        facts: dict[str, Any] = {}
        for entry in entries:
            facts.update(entry)
        if facts.get("format") != FORMAT:
            raise ValueError(f"has the format {facts.get('format')}, and this version reads {FORMAT}")
        self._facts = facts
        self.settled = settled
        self.launch: Launch = build(Launch, facts.get("launch"))
        self.manager = str(facts.get("manager", ""))
        self.boot_id = str(facts.get("boot_id", ""))
        receipt = facts.get("receipt")
        self.receipt: Receipt | None = None if receipt is None else build(Receipt, receipt)
        self._run(self._state())  # so that what makes no sense is told here
        orphaned, acknowledged = facts.get("orphaned"), facts.get("acknowledged")
        self.orphaned = None if orphaned is None else float(orphaned)
        self.acknowledged = None if acknowledged is None else float(acknowledged)

    @property
    def pid(self) -> int:
        """The number of the main process, 0 if it was never prepared."""
        return int(self._facts.get("pid", 0))

    @property
    def started(self) -> float:
        """When it was launched, on the monotonic clock of its boot."""
        return float(self._facts["started"])

    @property
    def where(self) -> str:
        """Where its processes belong: the cgroup, or "" if it has none."""
        return str(self._facts.get("where", ""))

    def charge(self, now: float) -> Charge:
        """Return the run as it was left, for a server of the same boot to go on with."""
        facts, run = self._facts, self._run(self._state())
        if run.state is State.READYING and not run.says_ready:
            run.state = State.RUNNING
        run.held, run.ready = bool(facts.get("held")), bool(facts.get("ready"))
        charge = Charge(self.launch, self.manager, run)
        charge.pid, charge.start = self.pid, int(facts.get("start", 0))
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
        facts = self._facts
        run = Run(self.launch, float(facts["started"]), float(facts["wall"]), state)
        run.outcome = self._outcome()
        run.ended = float(facts["ended"]) if "ended" in facts else None
        if "stopping" in facts:
            run.reason, run.detail = Reason(facts["stopping"]), str(facts.get("detail", ""))
        run.forced = bool(facts.get("forced"))
        return run

    def _outcome(self) -> Outcome | None:
        if "outcome" not in self._facts:
            return None
        # As part of a receipt, the outcome is checked like one.
        told = {"name": "x", "run_id": self.launch.run_id, "reason": "itself", "started": 0, "ended": 0, "lasted": 0}
        receipt: Receipt = build(Receipt, {**told, "outcome": self._facts["outcome"]})
        return receipt.outcome

    def _state(self) -> State:
        if self.receipt is not None:
            return State.CLEARING
        if "stopping" in self._facts:
            return State.KILLING if self._facts.get("forced") else State.STOPPING
        came_up = self._facts.get("ready") or (self._facts.get("moved") and self.launch.ready is None)
        return State.RUNNING if came_up else State.READYING
