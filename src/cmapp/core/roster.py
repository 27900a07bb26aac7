"""Who may launch, who answers for which run, and who has to wait: the server without sockets, processes and files.

Messages of managers, events of runs and the clock come in, effects go out, in the order in which they are to be
carried out. A manager that is there and answers is not pushed aside: a newcomer waits until that manager is heard
again, and is refused then, or until it is lost. The invariants: at most one launch waits for a name; a run id is
started at most once, however often it is launched.
"""

from __future__ import annotations

import math

from cmapp.core import effects as do
from cmapp.core import messages as m
from cmapp.core.archive import Archive
from cmapp.core.custody import Custody
from cmapp.core.lifecycle import Action, Event, State
from cmapp.core.outcome import Reason, Unknown
from cmapp.core.peer import Newcomer, Newcomers, Peer, same
from cmapp.core.rules import OnExisting

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
        self.most = most
        self.archive = Archive(receipts, retention)
        self._boot_id = boot_id
        self._custody = Custody(boot_id, self.archive)
        self._peers: dict[Hashable, Peer] = {}
        self._waiting = Newcomers()
        self._closing = False  # launches no more
        self._leaving = False  # decides nothing more: the next server does

    # ---- managers come and go ------------------------------------------------------------------------------

    def greet(self, link: Hashable, manager: str, instance: str, now: float) -> list[Effect]:
        """Let a proven manager in; an earlier link of the same process is dropped, with what may still arrive on it."""
        peer = Peer(link, manager, instance)
        for other in [other for other in self._peers.values() if same(other, peer)]:
            self._waiting.withdraw(other.link)
            del self._peers[other.link]
            charge = self._custody.links.get(other.link)
            if charge is not None:  # nobody is let in for it: its manager is here, and will say so
                self._custody.orphan(charge, now)
            self._custody.dismiss(other.link, "the same manager is on another link")
        self._peers[link] = peer
        return self._custody.take()

    def heard(self, link: Hashable) -> list[Effect]:
        """Take note that the manager on `link` answers: whoever waits for its run to be left waits in vain."""
        charge = self._custody.links.get(link)
        newcomer = self._waiting.get(charge.launch.name) if charge is not None else None
        if charge is not None and newcomer is not None and newcomer.contested:
            del self._waiting[charge.launch.name]
            text = f"an application of the name {charge.launch.name} is already watched by manager {charge.manager}"
            self._refuse(newcomer.peer, newcomer.launch, m.Refusal.NAME_TAKEN, text)
        return self._custody.take()

    def lost(self, link: Hashable, now: float) -> list[Effect]:
        """Take note that the link is gone: its run waits for its manager, what it waited for is forgotten."""
        self._waiting.withdraw(link)
        peer, charge = self._peers.pop(link, None), self._custody.links.get(link)
        if charge is not None and self._leaving:
            self._custody.unlink(charge)
        elif charge is not None:
            self._custody.orphan(charge, now)
            self._decide(charge, now)
        elif peer is not None:  # it may have come back for a run, and gone again before it asked for it
            for newcomer in list(self._waiting.values()):
                holder = self._custody.names[newcomer.launch.name]
                if holder.link is None and same(peer, holder.owner):
                    self._decide(holder, now)
        return self._custody.take()

    def launch(self, link: Hashable, launch: m.Launch, now: float, wall: float) -> list[Effect]:
        """Start the run, attach to it, tell how it ended, have it wait for its name, or refuse it."""
        self._admit(launch, self._peers[link], now, wall)
        return self._custody.take()

    # ---- what managers ask ---------------------------------------------------------------------------------

    def stop(self, link: Hashable, stop: m.Stop, now: float) -> list[Effect]:
        """Stop the manager's run, or take back its launch that waits."""
        charge = self._custody.links.get(link)
        self._custody.say(link, m.Done(stop.id))
        if charge is not None:
            event = Event.KILL_WANTED if stop.kill else Event.STOP_WANTED
            self._custody.step(charge, event, now, reason=Reason.ASKED)
        elif (newcomer := self._waiting.withdraw(link)) is not None:
            text = "it was stopped before it was launched"
            self._refuse(newcomer.peer, newcomer.launch, m.Refusal.STOPPED, text)
        return self._custody.take()

    def detach(self, link: Hashable, detach: m.Detach, now: float) -> list[Effect]:
        """Leave the manager's run to a later one, for as long as that takes."""
        charge = self._custody.links.get(link)
        if charge is not None and charge.run.alive:
            self._custody.detach(charge, now)
            self._decide(charge, now)
        self._custody.say(link, m.Done(detach.id))
        return self._custody.take()

    def hold(self, link: Hashable, hold: m.Hold, now: float) -> list[Effect]:
        """Let a run be, or no longer."""
        manager, charge = self._peers[link].manager, self._custody.names.get(hold.name)
        if charge is None or not charge.run.alive or charge.manager != manager:
            self._custody.say(link, m.Refused(m.Refusal.NO_RUN, f"no application {hold.name} runs here", id=hold.id))
            return self._custody.take()
        self._custody.hold(charge, manager, now, on=hold.on)
        self._custody.say(link, m.Done(hold.id))
        return self._custody.take()

    def acknowledge(self, link: Hashable, acknowledge: m.Acknowledge, wall: float) -> list[Effect]:
        """Take note that the manager has recorded the outcome."""
        self._custody.acknowledge(self._peers[link].manager, acknowledge.run_id, wall)
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

    def beat(self, run_id: str, now: float) -> None:
        """Take note that the application fed its watchdog."""
        self._custody.beat(run_id, now)

    def clock(self, now: float, wall: float, trouble: Callable[[str], str] = lambda _: "") -> list[Effect]:
        """Step the timers that are due, and drop the receipts that nobody needs any more.

        `trouble` tells of a run id what is known to keep it from being ready.
        """
        self._custody.clock(now, wall, trouble)
        for holder in [self._custody.names[name] for name in self._waiting.contested]:
            if holder.link is None and now >= holder.expected:
                self._decide(holder, now)
        return self._refilled(now, wall)

    @property
    def deadline(self) -> float | None:
        """When the clock has to be looked at next, or None; it may turn out that nothing is due."""
        expected = [self._custody.names[name].expected for name in self._waiting.contested]
        found = [at for at in (self._custody.deadline, *expected) if at is not None and at > -math.inf]
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
        self._leaving = self._closing = True
        self._waiting.clear()

    def end_all(self, now: float) -> list[Effect]:
        """Stop all runs by their rules, at a second call by SIGKILL, and launch no more."""
        event = Event.KILL_WANTED if self._closing else Event.STOP_WANTED
        self._closing = True
        for newcomer in [self._waiting.pop(name) for name in list(self._waiting)]:
            text = f"{newcomer.launch.name} was not launched: the server is being stopped"
            self._refuse(newcomer.peer, newcomer.launch, m.Refusal.STOPPED, text)
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

    @property
    def charges(self) -> dict[str, Charge]:
        """All runs that are there, by the name of their application."""
        return self._custody.names

    # ---- decisions -----------------------------------------------------------------------------------------

    def _admit(self, launch: m.Launch, peer: Peer, now: float, wall: float) -> None:
        """Decide on a launch that came, or that has waited for its name."""
        charge, kept = self._custody.runs.get(launch.run_id), self.archive.find(launch.run_id, launch.name)
        if kept is not None and kept.receipt.name == launch.name:
            self._custody.say(peer.link, m.Launched(launch.id, launch.run_id, kept.pid, attached=True))
            self._custody.say(peer.link, m.Exited(kept.receipt))
            self.archive.give(launch.run_id, peer.manager)
        elif charge is not None and charge.launch.name != launch.name:
            text = f"the run {launch.run_id} is one of the application {charge.launch.name}"
            self._refuse(peer, launch, m.Refusal.NAME_TAKEN, text)
        elif charge is not None and not charge.run.alive:  # it could not be started, and may be again
            self._wait(launch, peer, charge, contested=False)
        elif charge is not None:
            self._return(launch, peer, charge)
        elif launch.resume or kept is not None:
            self.archive.give_up(launch.run_id)  # its manager concludes that, so it must stay true
            self._refuse(peer, launch, m.Refusal.NO_RUN, f"nothing is known of a run {launch.run_id} of {launch.name}")
        elif self._closing:
            self._refuse(peer, launch, m.Refusal.STOPPED, "the server is being stopped")
        elif (holder := self._custody.names.get(launch.name)) is not None:
            self._contend(launch, peer, holder, now)
        else:
            self._start(launch, peer, now, wall)

    def _return(self, launch: m.Launch, peer: Peer, charge: Charge) -> None:
        """Attach the manager of a run that comes back to it, unless somebody else is there in its name."""
        owner = self._peers.get(charge.link)
        if owner is None or launch.takeover or same(owner, peer):
            self._custody.bind(charge, peer, launch.id)
        else:
            self._wait(launch, peer, charge, contested=True)

    def _contend(self, launch: m.Launch, peer: Peer, holder: Charge, now: float) -> None:
        """Decide what becomes of a launch whose name is another run's, or whose run is another manager's."""
        run, taken = holder.run, m.Refusal.NAME_TAKEN
        if not run.alive:
            self._wait(launch, peer, holder, contested=False)
        elif (holder.link is not None or now < holder.expected) and not launch.takeover:
            self._wait(launch, peer, holder, contested=True)
        elif launch.run_id == holder.run_id:
            self._custody.bind(holder, peer, launch.id)
        elif launch.on_existing is OnExisting.REFUSE:
            self._refuse(peer, launch, taken, f"an application of the name {launch.name} runs already")
        elif launch.on_existing is OnExisting.ATTACH and not run.stopping:
            self._custody.bind(holder, peer, launch.id)
        elif run.held:
            self._refuse(peer, launch, taken, f"{launch.name} is held: it is not replaced until it is resumed")
        elif self._wait(launch, peer, holder, contested=False):
            self._custody.step(holder, Event.STOP_WANTED, now, reason=Reason.REPLACED)

    def _decide(self, charge: Charge, now: float) -> None:
        """Let in who waited to see whether the manager of this run answers: it is gone."""
        newcomer = self._waiting.get(charge.launch.name)
        if newcomer is not None and newcomer.contested:
            del self._waiting[charge.launch.name]
            self._contend(newcomer.launch, newcomer.peer, charge, now)

    def _wait(self, launch: m.Launch, peer: Peer, holder: Charge, *, contested: bool) -> bool:
        if launch.name in self._waiting:
            self._refuse(peer, launch, m.Refusal.NAME_TAKEN, f"another launch of {launch.name} waits already")
            return False
        what = f"to see whether manager {holder.manager} answers" if contested else "for the end of the run before"
        self._custody.log("info", f"{launch.name} (run {launch.run_id}) waits {what}")
        self._waiting[launch.name] = Newcomer(launch, peer, contested=contested)
        return True

    def _start(self, launch: m.Launch, peer: Peer, now: float, wall: float) -> None:
        if sum(charge.run.alive for charge in self._custody.runs.values()) < self.most:
            self._custody.start(launch, peer, now, wall)
            return
        text = f"{self.most} applications run, which is max_applications of this guest"
        self._refuse(peer, launch, m.Refusal.CAPACITY, text)

    def _refilled(self, now: float, wall: float) -> list[Effect]:
        """Start what waits for names that have become free."""
        while self._custody.freed:
            newcomer = self._waiting.pop(self._custody.freed.pop(), None)
            if newcomer is not None:
                self._admit(newcomer.launch, newcomer.peer, now, wall)
        return self._custody.take()

    def _refuse(self, peer: Peer, launch: m.Launch, code: str, text: str) -> None:
        self._custody.log("warning", f"launch of {launch.name} by manager {peer.manager} refused: {text}")
        self._custody.say(peer.link, m.Refused(code, text, id=launch.id))
