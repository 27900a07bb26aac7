"""What the server knows and decides: the server without sockets, processes and files.

Messages of managers, events of runs and the clock come in, effects go out, in the order in which they are to be
carried out. Who is let in with which launch is decided in admission.py, what becomes of runs in custody.py. The
invariant: an input that comes for what is not there any more changes nothing.
"""

from __future__ import annotations

import math

from cmapp.core import effects as do
from cmapp.core import messages as m
from cmapp.core.admission import Admission
from cmapp.core.archive import Archive
from cmapp.core.custody import Custody
from cmapp.core.lifecycle import Action, Event, State
from cmapp.core.outcome import Reason, Unknown
from cmapp.core.peer import Peer, same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from typing import Any

    from cmapp.core.charge import Charge, Facts
    from cmapp.core.effects import Effect

UNSURE = "the server was restarted while it was being launched"


class Roster:
    """The server's knowledge. Every input returns the effects that are to be carried out, in order."""

    def __init__(self, boot_id: str, *, most: int, receipts: int, retention: float) -> None:
        """At most `most` runs are alive, `receipts` kept; those acknowledged are kept for `retention` seconds."""
        self.archive = Archive(receipts, retention)
        self._boot_id = boot_id
        self._custody = Custody(boot_id, self.archive)
        self.admission = Admission(self._custody, most)
        self._leaving = False  # decides nothing more: the next server does

    # ---- managers come and go ------------------------------------------------------------------------------

    def greet(self, link: Hashable, manager: str, instance: str, now: float) -> list[Effect]:
        """Let a proven manager in; an earlier link of the same process is dropped, with what may still arrive on it."""
        peer = Peer(link, manager, instance)
        for other in [other for other in self.admission.peers.values() if same(other, peer)]:
            self.admission.waiting.withdraw(other.link)
            del self.admission.peers[other.link]
            charge = self._custody.links.get(other.link)
            if charge is not None:  # nobody is let in for it: its manager is here, and will say so
                self._custody.orphan(charge, now)
            self._custody.dismiss(other.link, "the same manager is on another link")
        self.admission.peers[link] = peer
        return self._custody.take()

    def heard(self, link: Hashable) -> list[Effect]:
        """Take note that the manager on `link` answers: whoever waits for its run to be left waits in vain."""
        charge = self._custody.links.get(link)
        if charge is not None:
            self.admission.heard(charge)
        return self._custody.take()

    def lost(self, link: Hashable, now: float) -> list[Effect]:
        """Take note that the link is gone: its run waits for its manager, what it waited for is forgotten."""
        self.admission.waiting.withdraw(link)
        peer, charge = self.admission.peers.pop(link, None), self._custody.links.get(link)
        if charge is not None and self._leaving:
            self._custody.unlink(charge)
        elif charge is not None:
            self._custody.orphan(charge, now)
            self.admission.decide(charge, now)
        elif peer is not None:
            self.admission.gone(peer, now)
        return self._custody.take()

    def launch(self, link: Hashable, launch: m.Launch, now: float, wall: float) -> list[Effect]:
        """Start the run, attach to it, tell how it ended, have it wait for its name, or refuse it."""
        self.admission.launch(launch, self.admission.peers[link], now, wall)
        return self._custody.take()

    # ---- what managers ask ---------------------------------------------------------------------------------

    def stop(self, link: Hashable, stop: m.Stop, now: float) -> list[Effect]:
        """Stop the manager's run, or take back its launch that waits."""
        charge = self._custody.links.get(link)
        self._custody.say(link, m.Done(stop.id))
        if charge is not None:
            event = Event.KILL_WANTED if stop.kill else Event.STOP_WANTED
            self._custody.step(charge, event, now, reason=Reason.ASKED)
        else:
            self.admission.take_back(link)
        return self._custody.take()

    def detach(self, link: Hashable, detach: m.Detach, now: float) -> list[Effect]:
        """Leave the manager's run to a later one, for as long as that takes."""
        charge = self._custody.links.get(link)
        if charge is not None and charge.run.alive:
            self._custody.detach(charge, now)
            self.admission.decide(charge, now)
        self._custody.say(link, m.Done(detach.id))
        return self._custody.take()

    def hold(self, link: Hashable, hold: m.Hold, now: float) -> list[Effect]:
        """Let a run be, or no longer."""
        manager, charge = self.admission.peers[link].manager, self._custody.names.get(hold.name)
        if charge is None or not charge.run.alive or charge.manager != manager:
            self._custody.say(link, m.Refused(m.Refusal.NO_RUN, f"no application {hold.name} runs here", id=hold.id))
            return self._custody.take()
        self._custody.hold(charge, manager, now, on=hold.on)
        self._custody.say(link, m.Done(hold.id))
        return self._custody.take()

    def acknowledge(self, link: Hashable, acknowledge: m.Acknowledge, wall: float) -> list[Effect]:
        """Take note that the manager has recorded the outcome."""
        self._custody.acknowledge(self.admission.peers[link].manager, acknowledge.run_id, wall)
        self._custody.say(link, m.Done(acknowledge.id))
        return self._custody.take()

    # ---- what happens to runs ------------------------------------------------------------------------------

    def prepared(self, run_id: str, pid: int, start: int, where: str = "") -> list[Effect]:
        """Take note of the process that waits to become the application, and of its cgroup if it has one."""
        charge = self._custody.runs[run_id]
        charge.pid, charge.start = pid, start
        return [do.Begin(run_id, charge.entries(self._boot_id, where))]

    def unprepared(self, run_id: str, code: str, text: str, now: float, wall: float) -> list[Effect]:
        """Take note that there is not even a process for the run."""
        self._custody.fail(self._custody.runs[run_id], (code, text))
        return self._refilled(now, wall)

    def happened(self, run_id: str, event: Event, now: float, wall: float, **details: Any) -> list[Effect]:
        """Take note of an event of a run; `details` are those of Run.step, and `refusal` of a failed start."""
        charge = self._custody.runs.get(run_id)
        if charge is not None and self._leaving and event is Event.RECORDED:
            self._custody.write(charge, {"pid": 0})  # it is too late to begin: what waits for the word ends with us
        elif charge is not None:
            if event is Event.LEADER_ENDED and not charge.sure:
                details["outcome"] = Unknown(UNSURE)
            self._custody.step(charge, event, now, **details)
        return self._refilled(now, wall)

    def moved(self, run_id: str, pid: int, start: int) -> list[Effect]:
        """Take note that another process is the main one of the run."""
        self._custody.move(self._custody.runs[run_id], pid, start)
        return self._custody.take()

    def identified(self, run_id: str, pid: int, invocation: str) -> list[Effect]:
        """Take note of the main process of a run that is a unit, and of systemd's name for this start of it."""
        self._custody.identify(self._custody.runs[run_id], pid, invocation)
        return self._custody.take()

    def beat(self, run_id: str, now: float) -> None:
        """Take note that the application fed its watchdog."""
        self._custody.beat(run_id, now)

    def clock(self, now: float, wall: float, trouble: Callable[[str], str] = lambda _: "") -> list[Effect]:
        """Step the timers that are due, and drop the receipts that nobody needs any more.

        `trouble` tells of a run id what is known to keep it from being ready.
        """
        self._custody.clock(now, wall, trouble)
        self.admission.clock(now)
        return self._refilled(now, wall)

    @property
    def deadline(self) -> float | None:
        """When the clock has to be looked at next, or None; it may turn out that nothing is due."""
        found = [at for at in (self._custody.deadline, *self.admission.expected) if at is not None and at > -math.inf]
        return min(found, default=None)

    # ---- the server comes and goes -------------------------------------------------------------------------

    def load(self, files: Iterable[Facts], now: float, wall: float, damaged: Iterable[str] = ()) -> list[Effect]:
        """Take over what servers before this one have left: receipts, runs that may live, are lost, or `damaged`."""
        self.archive.lost.update(damaged)
        # A name is the latest run's, and what was acknowledged first expires first.
        for facts in sorted(files, key=lambda facts: (facts.receipt is None, facts.acknowledged or 0.0, facts.started)):
            if not facts.pid and not facts.settled:  # it was never executed
                self._custody.want(do.Forget(facts.launch.run_id))
            elif facts.boot_id == self._boot_id and not facts.settled:
                self._custody.take_over(facts, now)
            else:
                self._custody.take_in(facts)
        return self.clock(now, wall)

    def adopted(self, run_id: str, *, executed: bool = False) -> list[Effect]:
        """Take note that the process of an adopted run is there: what was being done about it is done again.

        `executed` tells that it was seen to be the application.
        """
        charge = self._custody.runs[run_id]
        if executed and not charge.sure:
            charge.sure = True
            self._custody.write(charge, {"launched": True})
        again = {State.STOPPING: Action.ASK_TO_STOP, State.KILLING: Action.KILL_TREE, State.CLEARING: Action.KILL_TREE}
        action = again.get(charge.run.state)
        if action is not None:
            self._custody.want(do.Do(run_id, action))
        return self._custody.take()

    def leave(self) -> None:
        """Leave everything to the next server: that links end now means nothing, and nobody is let in for it."""
        self._leaving = self.admission.closing = True
        self.admission.waiting.clear()

    def end_all(self, now: float) -> list[Effect]:
        """Stop all runs by their rules, at a second call by SIGKILL, and launch no more."""
        event = Event.KILL_WANTED if self.admission.closing else Event.STOP_WANTED
        self.admission.close()
        for charge in list(self._custody.runs.values()):
            self._custody.step(charge, event, now, reason=Reason.SERVER_STOPPED)
        return self._custody.take()

    # ---- what is asked about runs --------------------------------------------------------------------------

    def mine(self, link: Hashable) -> Charge | None:
        """Return the run that the manager on `link` answers for."""
        return self._custody.links.get(link)

    def charge(self, run_id: str) -> Charge | None:
        """Return the run of that run id, if there is anything of it."""
        return self._custody.runs.get(run_id)

    def seen_by(self, manager: str) -> dict[str, Charge]:
        """Return the runs that the manager may see, by the name of their application."""
        policy = self.admission.policy
        return {name: charge for name, charge in self.charges.items() if policy.sees(manager, charge.manager)}

    @property
    def charges(self) -> dict[str, Charge]:
        """All runs that are there, by the name of their application."""
        return self._custody.names

    def _refilled(self, now: float, wall: float) -> list[Effect]:
        """Start what waits for names that have become free."""
        self.admission.refill(now, wall)
        return self._custody.take()
