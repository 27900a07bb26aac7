"""The runs in the server's charge: what their events and the clock make of them, and what becomes of their files.

What is told of a run goes to the link that it is bound to. The invariants: at most one run of a name is there; a
receipt is told and written from one and the same record, and kept until it was acknowledged; a name is told to be
free only when nothing of its run is left.
"""

from __future__ import annotations

import heapq
import math

from cmapp.core import effects as do
from cmapp.core import messages as m
from cmapp.core.archive import DAMAGED
from cmapp.core.charge import Charge
from cmapp.core.duration import format_duration
from cmapp.core.lifecycle import Action, Event
from cmapp.core.outcome import describe
from cmapp.core.rules import OrphanAction
from cmapp.core.run import RETURN_LEAST, Run
from cmapp.core.wire import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any

    from cmapp.core.archive import Archive
    from cmapp.core.charge import Facts
    from cmapp.core.effects import Effect
    from cmapp.core.outcome import Receipt
    from cmapp.core.peer import Peer

RESTARTED = "the guest was restarted while it ran"


class Custody:
    """The runs by name, by run id and by the link that they are bound to; `freed` are names that became free."""

    def __init__(self, boot_id: str, archive: Archive) -> None:
        self.archive = archive
        self.names: dict[str, Charge] = {}
        self.runs: dict[str, Charge] = {}
        self.links: dict[Hashable, Charge] = {}
        self.freed: list[str] = []
        self._boot_id = boot_id
        self._alarms: list[tuple[float, str]] = []
        self._done: list[Effect] = []

    def take(self) -> list[Effect]:
        """Return what is to be done, and has not been returned yet."""
        done, self._done = self._done, []
        return done

    # ---- who answers for a run -----------------------------------------------------------------------------

    def start(self, launch: m.Launch, peer: Peer, now: float, wall: float) -> None:
        """Take a new run into charge, whose name must be free."""
        charge = Charge(launch, peer.manager, Run(launch, now, wall))
        charge.owner, charge.link, charge.launch_id = peer, peer.link, launch.id
        self.names[launch.name] = self.runs[launch.run_id] = self.links[peer.link] = charge
        self._done.append(do.Spawn(launch))

    def bind(self, charge: Charge, peer: Peer, launch_id: int) -> None:
        """Have the manager `peer` answer for the run; it is told so when the run is launched."""
        link, manager = peer.link, peer.manager
        if charge.link is not None and charge.link != link:
            del self.links[charge.link]
            self.dismiss(charge.link, f"manager {manager} watches {charge.launch.name} from here on")
        charge.owner, charge.link, charge.manager = peer, link, manager
        charge.detached, charge.orphaned, charge.expected = False, None, -math.inf
        self.links[link] = charge
        charge.run.found()
        self.write(charge, {"orphaned": None, "detached": False, "manager": manager})
        self.log("info", f"{charge}: watched by manager {manager}")
        charge.launch_id, charge.attached = launch_id, True
        if not charge.starting:
            self._tell_launched(charge)

    def orphan(self, charge: Charge, now: float) -> None:
        """Have nobody answer for a run whose link is lost."""
        self.unlink(charge)
        if not charge.run.alive:
            return
        charge.orphaned = now
        charge.run.orphan(now)
        self.alarm(charge)
        self.write(charge, {"orphaned": now})
        rules = charge.launch.orphan
        then = f"stopped if none comes within {format_duration(rules.timeout)}"
        kept = charge.run.held or rules.action is OrphanAction.KEEP
        self.log("warning", f"{charge}: its manager is lost: it is {'kept until one comes' if kept else then}")

    def detach(self, charge: Charge, now: float) -> None:
        """Have nobody answer for a run whose manager leaves it on purpose."""
        self.unlink(charge)
        charge.detached, charge.orphaned = True, now
        self.log("info", f"{charge}: manager {charge.manager} left it to a later one")
        self.write(charge, {"detached": True, "orphaned": now})

    def hold(self, charge: Charge, manager: str, now: float, *, on: bool) -> None:
        """Let a run be, or no longer, as `manager` wishes."""
        charge.run.hold(now, on=on, orphan=charge.link is None and not charge.detached)
        self.alarm(charge)
        self.write(charge, {"held": on})
        self.log("info", f"{charge}: {'held' if on else 'resumed'} by manager {manager}")
        self._done.append(do.Hold(charge.run_id, on))

    def acknowledge(self, manager: str, run_id: str, wall: float) -> None:
        """Take note that `manager` has recorded how a run ended."""
        if self.archive.acknowledge(manager, run_id, wall):
            self._done += [do.Write(run_id, {"acknowledged": wall}), do.DropOutput(run_id)]

    def unlink(self, charge: Charge) -> None:
        """Have nobody answer for it."""
        if charge.link is not None:
            del self.links[charge.link]
        charge.link = charge.launch_id = None

    # ---- what happens --------------------------------------------------------------------------------------

    def step(self, charge: Charge, event: Event, now: float, **details: Any) -> None:
        """Step the run; `details` are those of Run.step, and `refusal`, (code, text), with a failed start."""
        run, before = charge.run, charge.run.state
        refusal = details.pop("refusal", ("", ""))
        actions = run.step(event, now, **details)
        if run.stopping and run.state is not before:
            self.write(charge, {"stopping": run.reason.value, "detail": run.detail, "forced": run.forced})
        if event is Event.LEADER_ENDED and run.outcome is not None and run.stopping:
            self.write(charge, {"outcome": plain(run.outcome), "ended": run.ended})
        for action in actions:
            self._act(charge, action, now, refusal)
        self.alarm(charge)

    def beat(self, run_id: str, now: float) -> None:
        """Take note that the application of a run fed its watchdog."""
        charge = self.runs.get(run_id)
        if charge is not None:
            charge.run.beat(now)
            self.alarm(charge)

    def move(self, charge: Charge, pid: int, start: int) -> None:
        """Take note that another process is the main one of a run."""
        charge.pid, charge.start = pid, start
        self.write(charge, {"pid": pid, "start": start, "moved": True})

    def identify(self, charge: Charge, pid: int, invocation: str) -> None:
        """Take note of the main process of a unit, and of systemd's name for this start of it."""
        charge.pid = pid
        self.write(charge, {"pid": pid, "invocation": invocation})

    def fail(self, charge: Charge, refusal: tuple[str, str]) -> None:
        """Give up a run for which there is not even a process."""
        self._not_started(charge, *refusal)
        self._free(charge)

    def clock(self, now: float, wall: float, trouble: Callable[[str], str]) -> None:
        """Step the timers that are due, and drop the receipts that nobody needs any more.

        `trouble` tells of a run id what is known to keep it from being ready.
        """
        while self._alarms and self._alarms[0][0] <= now:
            at, run_id = heapq.heappop(self._alarms)
            charge = self.runs.get(run_id)
            if charge is not None:
                charge.alarm = None if charge.alarm == at else charge.alarm
                while (event := charge.run.clock(now)) is not None:
                    detail = trouble(charge.run_id) if event is Event.UNREADY else ""
                    self.step(charge, event, now, detail=detail)
                self.alarm(charge)
        self._done += [do.Forget(run_id) for run_id in self.archive.expire(wall, self.runs)]

    def alarm(self, charge: Charge) -> None:
        """Have the clock looked at when the run wants it."""
        at = charge.run.deadline
        if at is not None and (charge.alarm is None or at < charge.alarm):  # else there is one, which sees to this
            charge.alarm = at
            heapq.heappush(self._alarms, (at, charge.run_id))

    @property
    def deadline(self) -> float | None:
        """When the clock has to be looked at next, or None; it may turn out that nothing is due."""
        return self._alarms[0][0] if self._alarms else None

    # ---- what servers before this one have left ------------------------------------------------------------

    def take_over(self, facts: Facts, now: float) -> None:
        """Go on with a run of this boot, which may live."""
        charge = facts.charge(now)
        self.names[facts.launch.name] = self.runs[charge.run_id] = charge
        if facts.receipt is not None:
            self._keep(facts.manager, facts.receipt, facts.pid, facts.acknowledged)
        elif charge.orphaned is None and not charge.detached:
            charge.orphaned, charge.expected = now, now + RETURN_LEAST
            self.write(charge, {"orphaned": now})
        self._done.append(
            do.Adopt(
                *(charge.run_id, facts.launch, charge.pid, charge.start, facts.where),
                invocation=facts.invocation,
                over=facts.receipt is not None,
            )
        )
        self.alarm(charge)

    def take_in(self, facts: Facts) -> None:
        """Keep the receipt of a run that is over, or make one if nobody could."""
        receipt, run_id = facts.receipt, facts.launch.run_id
        if receipt is None:
            receipt = facts.lost(DAMAGED if facts.settled else RESTARTED)
            self.log("error", f"{facts.launch.name} (run {run_id}): {describe(receipt)}")
            self._done.append(do.Write(run_id, {"receipt": plain(receipt)}, sync=True))
        self._keep(facts.manager, receipt, facts.pid, facts.acknowledged)
        if not facts.settled:
            self._done.append(do.Settle(run_id))

    # ---- consequences --------------------------------------------------------------------------------------

    def _act(self, charge: Charge, action: Action, now: float, refusal: tuple[str, str]) -> None:
        match action:
            case Action.TELL_LAUNCHED:
                charge.starting = False
                self.log("info", f"{charge}: launched as process {charge.pid}")
                self.write(charge, {"launched": True})
                self._tell_launched(charge)
            case Action.TELL_READY:
                self.write(charge, {"ready": True})
                if charge.run.says_ready:
                    self._tell(charge, m.Ready(charge.run_id))
            case Action.TELL_NOT_STARTED:
                self._not_started(charge, *refusal)
            case Action.TELL_ENDED:
                self._tell_ended(charge, now)
            case Action.FREE_NAME:
                self._done.append(do.Do(charge.run_id, action))
                self._free(charge)
            case _:
                self._done.append(do.Do(charge.run_id, action))

    def _tell_launched(self, charge: Charge) -> None:
        if charge.launch_id is not None:
            number, charge.launch_id = charge.launch_id, None
            self._tell(charge, m.Launched(number, charge.run_id, charge.pid, attached=charge.attached))
            if charge.attached and charge.run.ready and charge.run.says_ready:
                self._tell(charge, m.Ready(charge.run_id))

    def _not_started(self, charge: Charge, code: str, text: str) -> None:
        self.log("warning", f"{charge}: not started: {text}")
        if charge.launch_id is not None:
            self._tell(charge, m.Refused(code, text, id=charge.launch_id))
        self.write(charge, {"pid": 0})
        self.unlink(charge)  # it may launch again at once, and that is another run
        charge.starting = False

    def _tell_ended(self, charge: Charge, now: float) -> None:
        self._done.append(do.Do(charge.run_id, Action.TELL_ENDED))
        receipt = charge.run.receipt(now)
        if charge.launch_id is None:
            self._tell(charge, m.Exited(receipt))
        self.unlink(charge)
        self.log("info", f"{charge}: {describe(receipt)}")
        self.write(charge, {"receipt": plain(receipt)}, sync=True)
        self._keep(charge.manager, receipt, charge.pid)

    def _keep(self, manager: str, receipt: Receipt, pid: int, acknowledged: float | None = None) -> None:
        dropped = self.archive.keep(manager, receipt, pid, acknowledged)
        if dropped is not None:
            run_id = dropped.receipt.run_id
            if dropped.acknowledged is None:
                most = self.archive.limit
                self.log("error", f"{most} receipts are kept, which is the limit: that of run {run_id} is dropped")
            self._done.append(do.Forget(run_id))

    def _free(self, charge: Charge) -> None:
        name = charge.launch.name
        del self.runs[charge.run_id]
        # Of what servers before this one have left, two may have had the name, one of which is over.
        other = next((other for other in self.runs.values() if other.launch.name == name), None)
        if other is None:
            self.names.pop(name, None)
            self.freed.append(name)
        else:
            self.names[name] = other
        kept = self.archive.find(charge.run_id) is not None
        self._done.append(do.Settle(charge.run_id) if kept else do.Forget(charge.run_id))

    # ---- effects -------------------------------------------------------------------------------------------

    def say(self, link: Hashable, message: m.Message) -> None:
        """Have a message said."""
        self._done.append(do.Say(link, message))

    def dismiss(self, link: Hashable, reason: str) -> None:
        """Have a manager hung up on."""
        self._done.append(do.Dismiss(link, reason))

    def write(self, charge: Charge, entry: dict[str, Any], *, sync: bool = False) -> None:
        """Have an entry added to the run's file, and to what is known of it."""
        charge.facts.update(entry)
        self._done.append(do.Write(charge.run_id, entry, sync))

    def log(self, level: str, text: str) -> None:
        """Have a line logged."""
        self._done.append(do.Log(level, text))

    def want(self, effect: Effect) -> None:
        """Have anything else done."""
        self._done.append(effect)

    def _tell(self, charge: Charge, message: m.Message) -> None:
        if charge.link is not None:
            self.say(charge.link, message)
