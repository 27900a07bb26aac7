"""The promises, held against what really happened, after every step and at the end of every schedule.

The judge knows what the world knows and the server does not: which processes lived when, and how they ended. The
invariant: it is told by the world and by what is said on links, never by what a core believes, but at the very
end, when the server's books must agree with the truth.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from truth import Truth

from cmapp.core import messages as m
from cmapp.core.archive import DAMAGED
from cmapp.core.ledger import decode
from cmapp.core.outcome import (
    FAULTS,
    Detached,
    Exited,
    Failed,
    GuestDown,
    NotStarted,
    Reason,
    Receipt,
    Signaled,
    Unknown,
    Unreachable,
    Verdict,
    exit_code,
)
from cmapp.core.rules import OnExisting, OrphanAction
from cmapp.core.wire import plain

if TYPE_CHECKING:
    from kernel import Process
    from manager import Manager
    from wires import Wire
    from world import World

SOON = 1e-6  # seconds that two sums of the same times may differ by
SILENCE = 14.0  # seconds after which a manager of this world is taken for lost: what it says in its hello
LATE = 0.1  # seconds that the server may take to do something about it
STANDING = ("freeze", "stop server", "hold", "resume")  # what makes an orphan's time begin anew
RETURN = 10.0  # seconds that a manager is given at least, when it was the server that was gone


class BrokenPromiseError(Exception):
    """A promise of the design was broken; `promise` is its name there."""

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(f"{promise}: {text}")
        self.promise = promise


class Judge:
    """Raises BrokenPromiseError whenever a promise is broken."""

    def __init__(self, world: World) -> None:
        self.truths: dict[str, Truth] = {}
        self.given_up: dict[str, Receipt] = {}  # what was said of runs that never were
        self._world = world
        self._off = -math.inf  # when the guest lost its power last
        self._served = 0.0  # since when there has been a server

    def expect(self, holds: bool, promise: str, text: str) -> None:  # noqa: FBT001
        """Raise BrokenPromiseError unless it `holds`."""
        if not holds:
            raise BrokenPromiseError(promise, text)

    # ---- what the world tells ------------------------------------------------------------------------------

    def spawned(self, launch: m.Launch, number: int) -> None:
        """Judge that a run is about to be started, for manager `number`."""
        manager = self._world.managers.get(number)
        again = manager is not None and manager.boot_id != self._world.boot_id
        called = self._world.called(launch.run_id)
        self.expect(not again, "P1", f"{called} is started for manager {number}, which launched it in another boot")
        truth = self.truths.get(launch.run_id)
        if truth is None or truth.forgotten:
            before, truth = truth, Truth(launch)
            truth.before = [] if before is None else [*before.before, before.told]
            self.truths[launch.run_id] = truth
        truth.launch = launch
        truth.stopping = ""
        truth.heard = self._world.timeline.now

    def executed(self, process: Process) -> None:
        """Judge an application that begins to run."""
        truth, called = self.truths[process.run_id], self._world.called(process.run_id)
        self._world.trace(lambda: f"the application of {called} begins to run as process {process.pid}")
        self.expect(not truth.starts or truth.forgotten, "P1", f"{called} was started twice")
        entry = self._world.disk.files.get(process.run_id)
        self.expect(entry is not None, "P7", f"{called} was executed before it was recorded")
        truth.starts += 1
        truth.leader, truth.outcome = process, None
        server = self._world.server
        watched = server is not None and server.alive and server.executions.processes.get(process.run_id) is process
        truth.doubtful = not watched or process.told  # it got its `go` from a server that is no more
        truth.told, truth.safe, truth.acknowledged, truth.forgotten = None, None, False, False
        self.look()

    def ended(self, process: Process) -> None:
        """Note how a process ended, and whether anybody was there to see it."""
        truth = self.truths.get(process.run_id)
        self._world.trace(
            lambda: f"process {process.pid} of {self._world.called(process.run_id)} ends: {process.outcome}"
        )
        if truth is None or truth.leader is not process:
            return
        truth.outcome = process.outcome
        server = self._world.server
        if server is None or not server.alive:
            truth.doubtful = truth.doubtful or process.parent is None
        elif process.parent is not server.identity:
            truth.doubtful = (
                truth.doubtful or not self._world.tells or process.run_id not in server.executions.processes
            )

    def crashed(self) -> None:
        """Note that a server is gone, with all that it had not written."""
        for run_id, truth in self.truths.items():
            file = self._world.disk.files.get(run_id)
            written = b"" if file is None else file.content
            truth.left = truth.left and b'"detached":true' in written
            known = b'"receipt":' in written or b'"outcome":' in written
            alive = truth.leader is not None and truth.leader.alive and b'"launched":true' in written
            if not truth.forgotten and not known and not alive:
                truth.doubtful = True

    def lost_power(self) -> None:
        """Note that the guest is gone, with all that was not synced."""
        self._off = self._world.timeline.now
        for run_id, truth in self.truths.items():
            file = self._world.disk.files.get(run_id)
            if not truth.forgotten and (file is None or not decode(file.content).entries[1:]):
                truth.forgotten = True
                self.expect(truth.safe is None, "P2", f"the disk has lost the receipt of {self._world.called(run_id)}")
            if truth.safe is None:
                truth.doubtful = True

    def synced(self, run_id: str, entry: dict[str, Any]) -> None:
        """Note what outlives a loss of power."""
        truth = self.truths.get(run_id)
        if truth is not None and "receipt" in entry:
            called = self._world.called(run_id)
            self.expect(truth.safe in (None, entry["receipt"]), "P2", f"another receipt of {called} is written")
            truth.safe = entry["receipt"]

    def noted(self, run_id: str, entry: dict[str, Any]) -> None:
        """Judge what the server writes down: whether it gives a run up too early."""
        truth, now = self.truths[run_id], self._world.timeline.now
        if "stopping" not in entry or truth.stopping:
            return
        truth.stopping = entry["stopping"]
        if truth.stopping == Reason.REPLACED.value:
            self._judge_replacement(run_id)
        if truth.stopping != Reason.MANAGER_LOST.value:
            return
        server = self._world.server
        charge = None if server is None else server.roster.charge(run_id)
        # Of two launches under one run id the one that is on disk counts, if the server died as it took up the other.
        rules = (truth if charge is None else charge).launch.orphan
        timeout, called = rules.timeout, self._world.called(run_id)
        least = timeout if self._served <= truth.heard else 0.0
        self.expect(now - truth.heard >= least - SOON, "P4", f"{called} was given up too early")
        after = min(timeout, RETURN)
        self.expect(now - self._served >= after - SOON, "P4", f"{called} was given up by a server just started")
        late = now - max(truth.heard + SILENCE, self._served) - timeout
        stood = any(decision.what in STANDING for decision in self._world.schedule.decisions)
        self.expect(late < LATE or stood, "P4", f"{called} was given up {late:g} s too late")
        self.expect(rules.action is OrphanAction.STOP, "P4", f"{called} was to be kept")
        self.expect(not truth.left, "P4", f"{called} was left on purpose, and stopped as an orphan")

    def _judge_replacement(self, run_id: str) -> None:
        """Judge that a run is stopped for another: its manager must have been gone, or pushed aside on purpose."""
        truth, now = self.truths[run_id], self._world.timeline.now
        for manager in self._world.managers.values():
            wire = manager.wire
            if manager.run_id != run_id or not manager.alive or manager.paused or manager.asked_for:
                continue
            if wire is None or not wire.alive or wire is not truth.wire:
                continue
            quiet = now - truth.heard <= manager.patience.silence and not any(way.held for way in wire.ways.values())
            claimed = any(
                other.task.takeover and other.task.name == truth.launch.name for other in self._world.managers.values()
            )
            called = self._world.called(run_id)
            self.expect(not quiet or claimed, "P1", f"{called} was replaced, and its manager was there and answered")

    def served(self) -> None:
        """Note that a server was started."""
        self._served = self._world.timeline.now

    def heard(self, run_id: str, wire: Wire) -> None:
        """Note that the manager of a run was heard."""
        truth = self.truths.get(run_id)
        if truth is not None:
            truth.heard, truth.wire = self._world.timeline.now, wire
            truth.left = truth.detached = False

    # ---- what is said --------------------------------------------------------------------------------------

    def said(self, message: m.Message) -> None:
        """Judge what the server says."""
        if not isinstance(message, m.Exited):
            return
        receipt = message.receipt
        called, truth = self._world.called(receipt.run_id), self.truths.get(receipt.run_id)
        if receipt.outcome == Unknown(DAMAGED) and (truth is None or truth.outcome is None or truth.acknowledged):
            self.given_up[receipt.run_id] = receipt  # nothing is known of it any more, and that may be said
            return
        if truth is None:
            raise BrokenPromiseError("P2", f"an outcome of {called}, which never was")
        self.judge_receipt(receipt, truth)
        safe = truth.safe is None or truth.safe == plain(receipt)
        self.expect(safe, "P2", f"the receipt of {called} that is kept is {truth.safe}, and {receipt} is told")
        same = truth.told in (None, receipt) or truth.doubtful or truth.forgotten
        self.expect(same, "P2", f"the receipt of {called} changed for no reason: {truth.told}, {receipt}")
        if truth.told is not None and isinstance(receipt.outcome, Unknown):
            truth.earlier.append(truth.told)  # a server that was killed had said more than it had written
        truth.told = receipt

    def judge_receipt(self, receipt: Receipt, truth: Truth) -> None:
        """Hold a receipt against what happened."""
        if receipt in truth.before:
            return
        called, outcome = self._world.called(receipt.run_id), receipt.outcome
        living = [process for process in self._world.kernel.tree(receipt.run_id) if process.ran]
        if isinstance(outcome, Unknown):
            lost = truth.doubtful or truth.forgotten
            self.expect(lost, "P2", f"{called} ended with {truth.outcome}, and its receipt says {outcome}")
            self.expect(not any(process.leader for process in living), "P2", f"{called} lives, and its end is told")
        else:
            self.expect(outcome == truth.outcome, "P2", f"{called} ended with {truth.outcome}, not with {outcome}")
        if receipt.reason is not Reason.ITSELF:
            pids = [process.pid for process in living]
            self.expect(not living, "P5", f"{called} was stopped, and processes {pids} of it live")

    def acknowledged(self, run_id: str) -> None:
        """Note that the server has heard an acknowledgement."""
        if run_id in self.truths:
            self.truths[run_id].acknowledged = True

    def forgotten(self, run_id: str) -> None:
        """Judge that the server forgets a run."""
        truth = self.truths.get(run_id)
        if truth is not None and not truth.forgotten:
            may = truth.acknowledged or not truth.starts
            self.expect(may, "P2", f"{self._world.called(run_id)} is forgotten, and nobody has acknowledged its end")
            truth.forgotten = truth.acknowledged

    def bound(self, run_id: str, heard: float) -> None:
        """Note that a run was given to a manager which was heard then."""
        truth = self.truths.get(run_id)
        if truth is not None:
            truth.heard = max(truth.heard, heard)

    def asked_to_leave(self, run_id: str) -> None:
        """Note that the server has heard that a run is to be left to a later manager."""
        if run_id in self.truths:
            self.truths[run_id].detached = True

    def left(self, manager: Manager) -> None:
        """Note that a manager left its run on purpose; if that is written down, any server knows."""
        truth, file = self.truths.get(manager.run_id), self._world.disk.files.get(manager.run_id)
        if truth is not None:
            content = b"" if file is None else file.content
            truth.left = content.rfind(b'"detached":true') > content.rfind(b'"detached":false')

    def concluded(self, manager: Manager, verdict: Verdict) -> None:
        """Judge what a manager concludes."""
        truth = self.truths.get(manager.run_id)
        who, called = f"manager {manager.task.number}", self._world.called(manager.run_id)
        match verdict:
            case Receipt(run_id=run_id):
                self.expect(run_id == manager.run_id, "P2", f"{who} concludes from another run's receipt")
                told = [] if truth is None else [truth.told, *truth.earlier]
                self.expect(verdict in [self.given_up.get(run_id), *told], "P2", f"{who} concludes what was not said")
                self._judge_code(who, verdict)
            case NotStarted():
                ran = truth is not None and truth.starts and manager.task.existing is not OnExisting.ATTACH
                self.expect(not ran, "P2", f"{who} concludes that {called} was not started, but it was")
            case Unknown():
                gone = truth is None or truth.doubtful or truth.forgotten or not truth.starts
                self.expect(
                    gone, "P2", f"{who} does not know how {called} ended, and it could: {truth and truth.outcome}"
                )
            case Unreachable(text=text) if "did not say in time" not in text:
                silent = self._world.timeline.now - max(manager.heard, manager.begun)
                self.expect(silent >= manager.patience.link_timeout - SOON, "P9", f"{who} gave up after {silent:g} s")
            case GuestDown():
                self.expect(self._off >= manager.heard, "P9", f"{who} takes the guest for down, and heard of it since")
            case Failed(text=text):
                self.expect(manager.asked_for, "P9", f"{who} failed: {text}")
            case Detached():
                self.expect(manager.asked_for, "P9", f"{who} left {called} and was not asked to")

    def _judge_code(self, who: str, receipt: Receipt) -> None:
        """Hold the exit code against the design's table."""
        match receipt.outcome:
            case _ if receipt.reason in FAULTS:
                code = 124
            case Exited(code=code):
                pass
            case Signaled(signal=number):
                code = 128 + number
            case _:
                code = 121
        said = int(exit_code(receipt))
        self.expect(said == code, "P3", f"{who} exits with {said}, not with {code}")

    # ---- after every step ----------------------------------------------------------------------------------

    def look(self) -> None:
        """Judge which processes live side by side."""
        names: dict[str, str] = {}
        for process in self._world.kernel.processes:
            if process.alive and process.ran:
                name = self._world.names[process.run_id]
                first = names.setdefault(name, process.run_id)
                if first != process.run_id:
                    one, two = self._world.called(first), self._world.called(process.run_id)
                    raise BrokenPromiseError("P1", f"{one} and {two} of {name} live at the same time")
